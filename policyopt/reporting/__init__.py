"""What a campaign has shown: statistics beside the published results, as text, tables, pages and figures."""
