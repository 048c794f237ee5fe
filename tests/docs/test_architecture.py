"""The house keeps its shape: imports point downward, heavy packages stay in their rooms, scripts are thin and speak for themselves."""

import ast
import subprocess
import sys

import pytest
from conftest import REPO, script_env

# The lowest first. Modules on one line may import each other, but not in a circle; all others import from lower lines only.
LAYERS = [
    ['policyopt.errors'],
    ['policyopt.arguments'],
    ['policyopt.environments'],
    ['policyopt.shipped'],
    ['policyopt.algorithms', 'policyopt.elementwise'],
    ['policyopt.signals', 'policyopt.cores', 'policyopt.provenance', 'policyopt.progress'],
    ['policyopt.files.atomic', 'policyopt.command_line'],
    ['policyopt.torchutil', 'policyopt.options'],
    ['policyopt.trajectories'],
    ['policyopt.interfaces'],
    ['policyopt.pipeline.locks'],  # a single run holds one for its log
    ['policyopt.files.guard', 'policyopt.files.names'],
    ['policyopt.files.hdf5', 'policyopt.files.ends'],
    ['policyopt.files.trajectory_file', 'policyopt.files.training_log', 'policyopt.files.results_file'],
    ['policyopt.files'],
    ['policyopt.sampling.actors', 'policyopt.sampling.rollout'],
    ['policyopt.sampling.workers'],
    ['policyopt.sampling'],
    ['policyopt.standardizer'],
    ['policyopt.nn'],
    ['policyopt.optim'],
    ['policyopt.policies', 'policyopt.valuefuncs'],
    ['policyopt.rl'],
    ['policyopt.rewards', 'policyopt.cloning'],
    ['policyopt.airl'],
    ['policyopt.imitation', 'policyopt.dagger'],
    ['policyopt.evaluation', 'policyopt.training'],
    ['policyopt.api'],
    ['policyopt.reporting'],
    ['policyopt.reproduction'],  # one study's statistics, which users' reports do not need
    ['policyopt.pipeline.command'],
    ['policyopt.pipeline.sweep', 'policyopt.pipeline.external_policies', 'policyopt.pipeline.cluster_options'],
    ['policyopt.pipeline.spec'],
    ['policyopt.pipeline.sample_stage', 'policyopt.pipeline.experiment_dir'],
    ['policyopt.pipeline.plan'],
    ['policyopt.pipeline.launch', 'policyopt.pipeline.clusters', 'policyopt.pipeline.schedulers'],
    ['policyopt.pipeline.estimate', 'policyopt.pipeline.evaluate_stage'],
    ['policyopt.pipeline'],
    ['policyopt.commands', 'policyopt.__main__'],
    ['scripts'],
    ['tools'],
]
SKIPPED = {'.venv', 'venv', 'build', 'dist', 'runs', '.git'}
SOURCES = sorted(p for p in REPO.rglob('*.py') if not SKIPPED & set(p.relative_to(REPO).parts))
SCRIPTS = sorted((REPO / 'scripts').rglob('[a-z]*.py'))
COMMANDS = sorted((REPO / 'policyopt' / 'commands').glob('[a-z]*.py'))
TOOLS = [p for p in sorted((REPO / 'tools').rglob('*.py')) if "__name__ == '__main__'" in p.read_text(encoding='utf-8')]
HOUSE = [p for p in SOURCES if p.relative_to(REPO).parts[0] in ('environments', 'policyopt', 'scripts', 'tools')]


def dotted(path):
    parts = path.relative_to(REPO).with_suffix('').parts
    parts = ('policyopt', *parts) if parts[0] == 'environments' else parts  # as which it is imported
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


MODULES = {dotted(p): p for p in HOUSE}


def imported_names(path):
    """Every module that a file imports, as (dotted name, line): at its top, inside functions, by import_module('a.b').

    `from a import b` counts as a.b when that is a module of ours, and a relative import is made absolute.
    """
    package = dotted(path) if path.name == '__init__.py' else dotted(path).rpartition('.')[0]
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ''
            if node.level:
                anchor = package.split('.')[: len(package.split('.')) - node.level + 1]
                base = '.'.join([*anchor, base] if base else anchor)
            for alias in node.names:
                yield resolve(base, alias.name), node.lineno
        elif isinstance(node, ast.Call) and getattr(node.func, 'attr', getattr(node.func, 'id', '')) in ('import_module', '__import__'):
            if node.args and isinstance(node.args[0], ast.Constant):
                yield node.args[0].value, node.lineno


def resolve(base, name):
    """The module behind `from base import name`: a submodule, the home of a name that policyopt re-exports, or base itself."""
    if f'{base}.{name}' in MODULES:
        return f'{base}.{name}'
    if base == 'policyopt':
        from policyopt import _MODULE_OF

        return f'policyopt.{_MODULE_OF[name]}' if name in _MODULE_OF else base
    return base


def layer(module):
    """The number of the layer that holds a module of ours, None for a module of somebody else or the package policyopt itself."""
    for i, rooms in enumerate(LAYERS):
        if any(module == room or module.startswith(room + '.') for room in rooms):
            return i
    return None


def where(path, line=None):
    return f'{path.relative_to(REPO)}' + (f':{line}' if line else '')


def own_imports():
    """(importing module, imported module of ours, place) for every import inside the house."""
    for path in HOUSE:
        for name, line in imported_names(path):
            if name.split('.')[0] in ('environments', 'policyopt', 'scripts', 'tools'):
                yield dotted(path), name, where(path, line)


def test_every_module_has_its_layer():
    homeless = [m for m in MODULES if m != 'policyopt' and layer(m) is None]
    assert not homeless, f'no layer for {homeless}: name them in LAYERS of {where(REPO / "tests/docs/test_architecture.py")}'


def test_imports_point_downward_only():
    upward = [
        f'{place}: {name} stands above {importer}'
        for importer, name, place in own_imports()
        if layer(importer) is not None and layer(name) is not None and layer(name) > layer(importer)
    ]
    assert not upward, '\n'.join(upward)


def test_no_circle_of_imports():
    graph = {}
    for importer, name, _ in own_imports():
        if name in MODULES and name != importer:
            graph.setdefault(importer, set()).add(name)
    done = set()

    def visit(module, trail):
        assert module not in trail, 'a circle: ' + ' > '.join([*trail[trail.index(module) :], module])
        if module not in done:
            for below in sorted(graph.get(module, ())):
                visit(below, [*trail, module])
            done.add(module)

    for module in sorted(graph):
        visit(module, [])


ROOM_OF = {'gymnasium': 'environments', 'mujoco': 'environments', 'gym': None, 'pandas': None, 'h5py': None}


@pytest.mark.parametrize('package, room', ROOM_OF.items())
def test_package_is_imported_only_in_its_room(package, room):
    strangers = [
        where(path, line)
        for path in HOUSE
        for name, line in imported_names(path)
        if name.split('.')[0] == package and path.relative_to(REPO).parts[0] != room
    ]
    assert not strangers, f'{package} is imported in {strangers}; its only room is {room}'


LIGHT = ['', '.algorithms', '.options', '.pipeline.spec', '.pipeline.plan', '.pipeline.clusters', '.pipeline.stages']


def test_importing_a_policy_does_not_import_pytables():
    code = "import policyopt.policies, policyopt.rewards, policyopt.sampling.mdp, sys; print('tables' in sys.modules)"
    done = subprocess.run([sys.executable, '-c', code], cwd=REPO, env=script_env(), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, 'False\n'), done.stderr


@pytest.mark.parametrize('module', LIGHT)
def test_a_dry_run_needs_neither_torch_nor_gymnasium(module):
    heavy = {'torch', 'gymnasium', 'mujoco', 'scipy', 'matplotlib', 'policyopt.environments'}
    code = f'import policyopt{module}, sys; print(*{heavy} & set(sys.modules))'
    done = subprocess.run([sys.executable, '-c', code], cwd=REPO, env=script_env(), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr


def test_the_way_from_file_to_executor_names_no_heavy_package():
    for name in ('spec', 'plan', 'launch', 'clusters', 'schedulers'):
        path = REPO / 'policyopt' / 'pipeline' / f'{name}.py'
        imported = {n for n, _ in imported_names(path)}
        assert not {n.split('.')[0] for n in imported} & {'torch', 'gymnasium', 'mujoco'}, where(path)
        assert not any(n.startswith('policyopt.environments') for n in imported), where(path)


# functions of libraries that take no keywords
WITHOUT_KEYWORDS = {'_lib.H5Pget_filter2', 'aten.elu_backward.grad_input'}


def test_no_call_has_more_than_five_positional_arguments():
    calls = (
        (node, where(path, node.lineno))
        for path in HOUSE
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8')))
        if isinstance(node, ast.Call)
    )
    long = [place for node, place in calls if len(node.args) > 5 and ast.unparse(node.func) not in WITHOUT_KEYWORDS]
    assert not long, f'name the arguments in {long}'


def test_every_module_has_a_docstring():
    assert not [where(p) for p in HOUSE if not ast.get_docstring(ast.parse(p.read_text(encoding='utf-8')))]


def public_functions(body, prefix=''):
    """(name, node) of functions and methods that others may call, __init__ among them."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith('_'):
            yield from public_functions(node.body, f'{prefix}{node.name}.')
        elif isinstance(node, ast.FunctionDef) and (node.name == '__init__' or not node.name.startswith('_')):
            yield prefix + node.name, node


def test_everything_public_is_annotated():
    bare = []
    for path in (p for p in HOUSE if p not in SCRIPTS + COMMANDS + TOOLS):
        for name, node in public_functions(ast.parse(path.read_text(encoding='utf-8')).body):
            a = node.args
            given = [x for x in (*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg) if x and x.arg not in ('self', 'cls')]
            if any(x.annotation is None for x in given) or (node.returns is None and node.name != '__init__'):
                bare.append(f'{where(path, node.lineno)}: {name}')
    assert not bare, '\n'.join(bare)


def test_editors_are_told_of_every_name_of_policyopt():
    import policyopt

    tree = ast.parse((REPO / 'policyopt' / '__init__.py').read_text(encoding='utf-8'))
    imports = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module.startswith('policyopt.')]
    told = {x.name: n.module for n in imports for x in n.names}
    assert told == {name: f'policyopt.{module}' for name, module in policyopt._MODULE_OF.items()}
    assert all((REPO / package / 'py.typed').exists() for package in ('policyopt', 'environments'))


def script_id(path):
    return path.relative_to(REPO).as_posix()


@pytest.mark.parametrize('script', SCRIPTS + TOOLS, ids=script_id)
def test_help_prints_the_docstring_and_its_example(script, run_script):
    home = script if script in TOOLS else REPO / 'policyopt' / 'commands' / script.name
    doc = ast.get_docstring(ast.parse(home.read_text(encoding='utf-8')))
    assert f'python {script_id(script)}' in doc, 'the docstring shows no example'
    help_text = run_script(script, '--help').stdout
    assert ''.join(doc.split()) in ''.join(help_text.split())


@pytest.mark.parametrize('script', SCRIPTS + TOOLS, ids=script_id)
def test_an_unknown_flag_is_refused_with_exit_code_2(script, run_script, tmp_path):
    done = run_script(script, '--no_such_flag', rc=2)
    assert done.stderr.strip() and 'Traceback' not in done.stderr and not done.stdout
    assert not list(tmp_path.iterdir()), 'it wrote something'
