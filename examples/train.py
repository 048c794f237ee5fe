"""Train an expert, record it, and imitate it without its reward: python train.py"""

import policyopt as po

expert = po.train('trpo', 'CartPole-v1', iterations=15, seed=0, min_total_sa=2000).policy
demos = po.Demonstrations.record(expert, 'CartPole-v1', episodes=4, max_traj_len=200)
run = po.train('gail', 'CartPole-v1', demos, iterations=15, seed=0)
for name, policy in (('expert', expert), ('imitation', run.policy)):
    print(name, po.evaluate(policy, 'CartPole-v1', episodes=10).returns.mean())
run.save('run.h5')
