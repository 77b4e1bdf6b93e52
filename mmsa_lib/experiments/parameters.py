"""What a notebook may be asked: its ``parameters`` cell read as a typed model, and values checked against it.

Papermill only warns of a parameter that it does not know and then runs with the default, it turns ``3e-4`` from YAML
into text, and it overlooks annotations such as ``int | None``. So the cell is read here with :mod:`ast`, nothing in it
is run, and every value is checked before a kernel starts. Where papermill alone has started one, the notebook's first
cell checks them by :func:`open_page`.
"""

from __future__ import annotations

import ast
import builtins
import json
import sys
from collections.abc import Collection, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, Optional, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, PydanticUserError, TypeAdapter, ValidationError, create_model

from mmsa_lib.errors import ConfigError, unknown_name
from mmsa_lib.experiments.fingerprint import parse
from mmsa_lib.files import parse_yaml
from mmsa_lib.methods.evidence import numbers_only

if TYPE_CHECKING:
    from IPython.display import Markdown
    from nbformat import NotebookNode

PARAMETERS_TAG = "parameters"
LESSON_TAG = "lesson"
"""Of cells that teach and that nothing else needs: a sweep leaves them out."""
PROFILES = ("smoke", "cpu", "full")
MOST_DOTS = 20

# What an annotation may be made of: types whose values are plain JSON, and ways to combine them.
_TYPES: dict[str, Any] = {name: getattr(builtins, name) for name in ("bool", "int", "float", "str", "list", "dict")}
_TYPES |= {"Literal": Literal, "Optional": Optional, "Union": Union}


def read_notebook(path: Path | str, lessons: bool = True) -> NotebookNode:
    """The notebook in ``path``, in the newest minor version of format 4.

    Args:
        path: the file.
        lessons: keep the cells tagged :data:`LESSON_TAG`. Without them stored outputs go, too: who leaves lessons out
            runs the rest, and makes outputs of his own.

    Raises:
        ConfigError: there is no such file, or it is not a notebook.
    """
    import nbformat

    path = Path(path)
    try:
        notebook = nbformat.read(path, as_version=4)
    except FileNotFoundError:
        raise ConfigError(f"no notebook {path}; give the path of an .ipynb file") from None
    except Exception as error:  # nbformat raises many kinds, and a bare ValueError for broken JSON
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(f"{path} is not a Jupyter notebook: {reason}") from None
    notebook = nbformat.v4.upgrade(notebook)
    if not lessons:
        notebook.cells = [cell for cell in notebook.cells if LESSON_TAG not in cell.metadata.get("tags", [])]
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs = []
    return notebook


def parameters_model(notebook: NotebookNode, name: str = "notebook") -> type[BaseModel]:
    """The ``parameters`` cell of ``notebook`` as a pydantic model; fields keep the order of the cell.

    The cell holds nothing but ``name: type = literal`` lines; types are built from ``bool``, ``int``, ``float``,
    ``str``, ``list``, ``dict``, ``Literal``, ``Optional`` and ``None``.

    Args:
        notebook: the notebook, as :func:`read_notebook` returns it.
        name: what error messages call it.

    Raises:
        ConfigError: none or several ``parameters`` cells, another statement in it, a default that is no literal or
            that its own annotation forbids.
    """
    cells = [cell for cell in notebook.cells if PARAMETERS_TAG in cell.metadata.get("tags", [])]
    if len(cells) != 1 or cells[0].cell_type != "code":
        raise ConfigError(f"{name}: exactly one code cell must be tagged 'parameters', found {len(cells)}")
    try:
        statements = parse(cells[0].source).body
    except SyntaxError as error:
        raise ConfigError(f"{name}: the parameters cell is not Python, line {error.lineno}: {error.msg}") from None
    fields: dict[str, Any] = {}
    for statement in statements:
        field, annotation, default = _read_line(statement, name)
        if field in fields:
            raise ConfigError(f"{name}: parameter {field!r} is defined twice; keep one line")
        fields[field] = (annotation, default)
    model = _model(fields, name)
    try:
        model()
    except ValidationError as error:
        raise ConfigError(f"{name}: the default of {_first_problem(error)}") from None
    return model


def typed_parameters(model: type[BaseModel], given: Mapping[str, Any], name: str = "notebook") -> dict[str, Any]:
    """All parameters of a run: the values ``given``, typed as the notebook says, and defaults for the others.

    Text is read as the annotated type where it spells one (``"7"`` as ``int``, ``"{a: 1}"``, as YAML, as ``dict``),
    since command lines and YAML deliver text; anything else of another type is an error.

    Args:
        model: from :func:`parameters_model`.
        given: values by name.
        name: what error messages call the notebook.

    Returns:
        Plain values by name, in the order of the cell.

    Raises:
        UnknownNameError: a name that the notebook does not define; lists the nearest ones.
        ConfigError: a value of the wrong type, or an unknown ``profile``.
    """
    for key in given:
        if key not in model.model_fields:
            raise unknown_name(f"parameter of {name}", key, model.model_fields)
    given = {
        key: parse_yaml(value, f"{name}: parameter {key!r}")
        if isinstance(value, str) and _is_structure(model.model_fields[key].annotation)
        else value
        for key, value in given.items()
    }
    try:
        values = model(**given).model_dump()
    except ValidationError as error:
        raise ConfigError(f"{name}: parameter {_first_problem(error)}") from None
    for key, value in values.items():
        try:
            numbers_only(given.get(key, value), value)
            json.dumps(value, allow_nan=False)
        except ValueError as error:
            reason = "nan and infinity are no numbers here" if "JSON compliant" in str(error) else error
            raise ConfigError(
                f"{name}: parameter {key!r} cannot be {_shown(given.get(key, value))}: {reason}"
            ) from None
    if values.get("profile", PROFILES[0]) not in PROFILES:
        raise unknown_name("profile", values["profile"], PROFILES)
    seed = values.get("seed")
    if isinstance(seed, int) and not 0 <= seed < 2**32:
        raise ConfigError(f"{name}: parameter 'seed' cannot be {_shown(seed)}: a seed is 0 to {2**32 - 1}")
    return values


def open_page(page: dict[str, Any], *modules: str) -> None:
    """Begin a notebook: give its parameters the types of their annotations, and see that it finds what it imports.

    Plain papermill hands a mapping of its command line (``-p config '{"max_epochs": 1}'``) and numbers such as ``3e-4``
    over as text, and checks nothing. This stands right after the ``parameters`` cell.

    Args:
        page: ``globals()`` of the notebook; what is annotated there are its parameters.
        modules: modules of the checkout, ``companion``, that the notebook imports and no wheel brings.

    Raises:
        ConfigError: such a module is missing, or a parameter has another type.
    """
    for module in modules:
        if find_spec(module) is None:
            raise ConfigError(
                f"this page needs the folder {module}/ of a checkout of the project, which the installed library does "
                f"not bring; in a checkout run `pip install -e .[lab]`, or set PYTHONPATH to the checkout"
            )
    kinds = page.get("__annotations__", {})
    model = _model({name: (kind, ...) for name, kind in kinds.items()}, "this page")
    page.update(typed_parameters(model, {name: page[name] for name in model.model_fields}, "this page"))


def described_run(**values: Any) -> Markdown | None:
    """Say in one line that the text of a notebook describes another run, where one of its parameters was changed.

    Args:
        values: the parameters as in the committed notebook; a global of the calling cell has the value now.
    """
    from IPython.display import Markdown

    now = sys._getframe(1).f_globals
    other = [name for name, value in values.items() if now[name] != value]
    if not other:
        return None
    told = ", ".join(f"`{name}={now[name]!r}` in place of `{values[name]!r}`" for name in other)
    return Markdown(f"**The text of this page describes another run than yours**: {told}. Trust the outputs.")


def merge(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes``; ``a.b: value`` sets key ``b`` of the mapping ``a``, a mapping adds to a mapping.

    Raises:
        ConfigError: a dotted key reaches into a value that is no mapping.
    """
    merged = dict(base)
    for key, value in changes.items():
        if key.count(".") > MOST_DOTS:
            raise ConfigError(f"{key[:40]}… has more than {MOST_DOTS} dots")
        name, dot, inner = key.partition(".")
        old = merged.get(name, {})
        if dot:
            if not isinstance(old, Mapping):
                raise ConfigError(f"{key} reaches into {name}, which is {old!r} and no mapping")
            merged[name] = merge(dict(old), {inner: value})
        elif isinstance(value, Mapping) and isinstance(old, Mapping):
            merged[name] = {**old, **value}
        else:
            merged[name] = value
    return merged


def check_data(data: Mapping[str, Any], *, needs: Collection[str] = (), sample: int = 0) -> None:
    """Refuse a data set that a page about sentiment scores can't show, before anything is trained.

    Args:
        data: the splits, as :func:`mmsa_lib.data.load` returns them.
        needs: modalities that the page is about.
        sample: position of a training sample that the page draws.

    Raises:
        ConfigError: other labels, a modality or the sample is missing; says what the set has.
    """
    train = data["train"]
    has, count = list(train.modalities), len(train.data.ids)
    if train.task.kind != "regression":
        kind = train.task.kind
        raise ConfigError(f"this page is about one sentiment score per sample; the data set has {kind}, for 06_train")
    if set(needs) - set(has):
        raise ConfigError(f"this page is about {' and '.join(needs)}; the data set has {' and '.join(has)} only")
    if not 0 <= sample < count:
        raise ConfigError(f"sample={sample} is not there; the training split has {count} samples, 0 to {count - 1}")


def _model(fields: dict[str, Any], name: str) -> type[BaseModel]:
    """A model of parameters; ``fields`` holds type and default of each, or ``...`` where it must be given."""
    config = ConfigDict(extra="forbid", validate_default=True, protected_namespaces=())
    for field, (kind, _) in fields.items():
        if field.startswith("model_") and hasattr(BaseModel, field):
            raise ConfigError(f"{name}: parameter {field!r} has a name that pydantic needs; give it another")
        try:
            TypeAdapter(kind)
        except (PydanticUserError, TypeError, AttributeError):
            raise ConfigError(f"{name}: the annotation of parameter {field!r} is no type; give one in full") from None
    return create_model("Parameters", __config__=config, **fields)


def _is_structure(annotation: Any) -> bool:
    """Whether an annotation wants a list or a mapping, and would not take text."""
    kinds = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    return str not in kinds and any((get_origin(kind) or kind) in (list, dict) for kind in kinds)


def _read_line(statement: ast.stmt, name: str) -> tuple[str, Any, Any]:
    """Name, type and default of one ``name: type = literal`` line."""
    where = f"{name}: line {statement.lineno} of the parameters cell"
    if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name) or not statement.value:
        raise ConfigError(f"{where} must read `name: type = literal`, not `{ast.unparse(statement)}`")
    field = statement.target.id
    if field.startswith("_"):
        raise ConfigError(f"{where}: parameter {field!r} must not start with an underscore")
    try:
        default = ast.literal_eval(statement.value)
    except ValueError:
        raise ConfigError(f"{where}: the default of {field!r} must be a literal") from None
    return field, _read_annotation(statement.annotation, where), default


def _read_annotation(node: ast.expr, where: str) -> Any:
    """The type that an annotation names; only names of ``_TYPES``, subscripts, ``|`` and constants are read."""
    allowed = (ast.Name, ast.Subscript, ast.Tuple, ast.BinOp, ast.BitOr, ast.Constant, ast.Load)
    for part in ast.walk(node):
        if not isinstance(part, allowed) or (isinstance(part, ast.Name) and part.id not in _TYPES):
            raise ConfigError(f"{where}: annotation `{ast.unparse(node)}` may only use {', '.join(_TYPES)} and None")
    try:
        return eval(compile(ast.Expression(node), "annotation", "eval"), {"__builtins__": {}}, _TYPES)
    except TypeError as error:
        raise ConfigError(f"{where}: annotation `{ast.unparse(node)}` is not a type: {error}") from None


def _first_problem(error: ValidationError) -> str:
    """The first complaint of pydantic in one line: field, value, reason."""
    problem = error.errors()[0]
    field = ".".join(str(part) for part in problem["loc"])
    return f"{field!r} cannot be {_shown(problem['input'])}: {problem['msg'][0].lower()}{problem['msg'][1:]}"


def _shown(value: Any) -> str:
    """``value`` for a message of one line."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}…"
