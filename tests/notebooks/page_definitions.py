"""Classes and functions of a notebook, taken out of its cells by name, and compared with those of the library."""

import ast
import builtins
import importlib
import pkgutil
import symtable
import types

import nbformat
import torch

from mmsa_lib.paths import project_root

CASES = []
DEFINITIONS = (ast.FunctionDef, ast.ClassDef)


def case(notebook, *names, **given):
    """Register the decorated function as a case: it gets the definitions ``names`` and calls :func:`assert_same`.

    Args:
        notebook: file name without suffix, such as ``05_hrlf``.
        names: classes and functions that the page defines.
        given: values for names that the page computes and a definition uses.
    """

    def register(check):
        CASES.append((notebook, names, given, check))
        return check

    return register


def all_cases():
    """The cases of every module of ``page_cases``, one a notebook."""
    folder = importlib.import_module("page_cases")
    for module in pkgutil.iter_modules(folder.__path__):
        importlib.import_module(f"page_cases.{module.name}")
    return list(CASES)


def committed(name):
    return nbformat.read(project_root() / "notebooks" / f"{name}.ipynb", as_version=4)


def statements(notebook):
    """Top-level statements of the code cells with the number of their cell; cells with magics are left out."""
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            try:
                body = ast.parse(cell.source).body
            except SyntaxError:
                continue
            yield from ((number, node) for node in body)


def load(notebook, *names, **given):
    """A module with the definitions ``names`` of ``notebook`` and what they need; no other line of it is run.

    They may need imports, other definitions and assignments of literals. The last definition of a name counts.

    Raises:
        LookupError: the page does not define a name, or a definition uses a value that the page computes.
    """
    known = {name: (number, node) for number, node in statements(notebook) for name in _defined(node)}
    wanted, todo = {}, list(names)
    while todo:
        name = todo.pop()
        if name in wanted or name in given:
            continue
        if name not in known:
            raise LookupError(f"the notebook does not define {name}")
        number, node = known[name]
        if not _plain(node):
            raise LookupError(
                f"cell {number} computes {name}, which {', '.join(names)} use: make it an argument, or give it to load"
            )
        wanted[name] = (number, node)
        if isinstance(node, DEFINITIONS):
            todo += [used for used in _used(node) if used in known or not hasattr(builtins, used)]
    module = types.ModuleType("page")
    module.__dict__.update(given)
    for number, node in sorted(set(wanted.values()), key=lambda found: (found[0], found[1].lineno)):
        code = compile(ast.Module([node], type_ignores=[]), f"<cell {number} of the notebook>", "exec")
        exec(code, module.__dict__)
    return module


def _defined(node):
    """Names that a top-level statement gives a value to."""
    if isinstance(node, DEFINITIONS):
        return [node.name]
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return [(alias.asname or alias.name).split(".")[0] for alias in node.names]
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return [part.id for target in targets if target for part in ast.walk(target) if isinstance(part, ast.Name)]


def _plain(node):
    if isinstance(node, (*DEFINITIONS, ast.Import, ast.ImportFrom)):
        return True
    if not isinstance(node, (ast.Assign, ast.AnnAssign)):
        return False
    try:
        ast.literal_eval(node.value)
    except ValueError:
        return False
    return True


def _used(node):
    """Global names that a definition uses: itself at the top, or anywhere inside."""
    table = symtable.symtable(ast.unparse(node), "<page>", "exec")
    found, tables = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_referenced()}, [table]
    while tables:
        tables += (inner := tables.pop()).get_children()
        found |= {symbol.get_name() for symbol in inner.get_symbols() if inner is not table and symbol.is_global()}
    return found - {node.name}


def copy_weights(source, target, names=None):
    """Give ``target`` the weights of ``source``; pairs of parameters (of ``target``, of ``source``).

    Args:
        source: module of the library.
        target: module of the page.
        names: start of a name in ``target`` to its start in ``source``, the longest counts; ``None``: parameters and
            buffers correspond in their order.

    Raises:
        LookupError: a parameter of either module has no partner, or one of another shape.
    """
    ours, theirs = dict(target.named_parameters()), dict(source.named_parameters())
    if names is None:
        partner = dict(zip(ours, theirs, strict=False))
    else:
        starts = {key: max((s for s in names if key.startswith(s)), key=len, default=None) for key in ours}
        partner = {key: names[s] + key.removeprefix(s) if s is not None else key for key, s in starts.items()}
    odd = set(theirs) ^ set(partner.values()) | {key for key in ours if key not in partner}
    if odd:
        raise LookupError(f"no partner for {', '.join(sorted(odd))}")
    for key, other in partner.items():
        if ours[key].shape != theirs[other].shape:
            raise LookupError(f"{key} {tuple(ours[key].shape)} is not {other} {tuple(theirs[other].shape)}")
        ours[key].data.copy_(theirs[other].data)
    for own, other in zip(target.buffers(), source.buffers(), strict=False):
        own.data.copy_(other.data)
    return [(ours[key], theirs[other]) for key, other in partner.items()]


def assert_same(page, library, *arguments, weights=(), gradients=True, rtol=1e-4, atol=1e-6):
    """Assert that two callables give equal outputs (or losses), and equal gradients in inputs and in weights.

    Outputs are nested tuples, lists and dictionaries of tensors, in one order; write a ``lambda`` that brings one side
    into the form of the other. Both start from one seed, so dropout is the same where it is drawn in the same order.

    Args:
        page: module or function of the notebook.
        library: its counterpart.
        arguments: for both; floating tensors in them, also inside dictionaries and lists, get gradients.
        weights: what :func:`copy_weights` returned.
        gradients: whether there are any.
        rtol: relative tolerance.
        atol: absolute tolerance.
    """
    outputs, slopes = [], []
    for call, side in ((page, 0), (library, 1)):
        inputs = _copied(arguments)
        parameters = [pair[side] for pair in weights]
        for parameter in parameters:
            parameter.grad = None
        torch.manual_seed(0)
        found = list(_tensors(call(*inputs)))
        assert found, "no output is a tensor"
        outputs.append(found)
        if gradients:
            torch.manual_seed(1)
            total = sum((x * torch.randn(x.shape).to(x)).sum() for x in found if x.requires_grad)
            assert isinstance(total, torch.Tensor), "no output depends on an input or a weight"
            total.backward()
            leaves = [x for x in _tensors(inputs) if x.is_floating_point()] + parameters
            slopes.append([torch.zeros_like(x) if x.grad is None else x.grad for x in leaves])
    for kind, (ours, theirs) in {"output": outputs, **({"gradient": slopes} if gradients else {})}.items():
        assert len(ours) == len(theirs), f"{len(ours)} {kind}s of the page, {len(theirs)} of the library"
        for place, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            torch.testing.assert_close(
                one, other, rtol=rtol, atol=atol, msg=lambda text, k=kind, p=place: f"{k} {p}: {text}"
            )


def _tensors(found):
    if isinstance(found, torch.Tensor):
        yield found
    elif isinstance(found, dict):
        for value in found.values():
            yield from _tensors(value)
    elif isinstance(found, (list, tuple)):
        for value in found:
            yield from _tensors(value)


def _copied(found):
    if isinstance(found, torch.Tensor):
        return found.detach().clone().requires_grad_(found.is_floating_point())
    if isinstance(found, dict):
        return {key: _copied(value) for key, value in found.items()}
    if isinstance(found, (list, tuple)) and not hasattr(found, "_fields"):
        return type(found)(_copied(value) for value in found)
    return found


def modules_of(notebook):
    """Names of the classes that a page defines as networks."""
    bases = {"Module", "nn.Module", "torch.nn.Module"}
    return {
        node.name
        for _, node in statements(notebook)
        if isinstance(node, ast.ClassDef) and bases & {ast.unparse(base) for base in node.bases}
    }
