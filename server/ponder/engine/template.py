"""Finds the variables that a chat template reads, and that a request may set."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jinja2


def inputs(template: str) -> frozenset[str]:
    """Names that a template reads before it sets them itself.

    A name that one branch sets does not count behind that branch: a value from the request would
    hold only where another branch was taken. Raises `jinja2.TemplateSyntaxError`.

        >>> sorted(inputs("{% for m in messages %}{{ m.content }}{% endfor %}{{ tone }}"))
        ['messages', 'tone']
    """
    environment = _environment()
    reader = _Reader()
    reader.visit([environment.parse(template)], set())
    while reader.macros:  # last: a macro may be called after any name is set
        macro, known = reader.macros.pop()
        reader.visit(macro.iter_child_nodes(), {*known, "caller", "kwargs", "varargs"})
    return frozenset(reader.found - environment.globals.keys())


_IN_TIME = {
    "Assign": ("node", "target"),
    "AssignBlock": ("filter", "body"),
    "For": ("iter", "target", "test", "body", "else_"),
    "With": ("values", "targets", "body"),
}
"""Parts of nodes in order of execution, where the tree has another order."""
_SCOPES = ("AssignBlock", "CallBlock", "FilterBlock", "For", "With")
"""Nodes whose names are not known behind them."""


class _Reader:
    """Walks a template in the order of rendering; `found` are names read before they were set."""

    def __init__(self) -> None:
        self.found: set[str] = set()
        self.macros: list[tuple[jinja2.nodes.Macro, set[str]]] = []

    def visit(self, nodes: Iterable[jinja2.nodes.Node], known: set[str]) -> None:
        """Walk `nodes`; `known` are the names set so far, and grows."""
        for node in nodes:
            self._visit(node, known)

    def _visit(self, node: jinja2.nodes.Node, known: set[str]) -> None:
        from jinja2 import nodes

        kind = type(node).__name__
        if isinstance(node, nodes.Name):
            if node.ctx != "load":
                known.add(node.name)
            elif node.name not in known:
                self.found.add(node.name)
        elif isinstance(node, nodes.Macro):
            known.add(node.name)
            self.macros.append((node, known))
        elif isinstance(node, nodes.If):
            self._visit(node.test, known)
            branches: list[list[nodes.Node]] = [node.body, [*node.elif_], node.else_]
            behind = [{*known} for _ in branches]
            for branch, own in zip(branches, behind, strict=True):
                self.visit(branch, own)
            known.update(*behind)
        else:
            scope = {*known, *(("loop",) if kind == "For" else ())} if kind in _SCOPES else known
            for part in _IN_TIME.get(kind, node.fields):
                self.visit(node.iter_child_nodes(only=(part,)), scope)
        if isinstance(node, nodes.AssignBlock):
            self._visit(node.target, known)
        elif isinstance(node, nodes.Import):
            known.add(node.target)
        elif isinstance(node, nodes.FromImport):
            known.update(name if isinstance(name, str) else name[1] for name in node.names)


def _environment() -> jinja2.Environment:
    """A parser for transformers' templates: with its tags, its functions not as variables."""
    import jinja2.ext

    class Generation(jinja2.ext.Extension):
        """`{% generation %}` marks what an assistant says, for training."""

        tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

        def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    environment = jinja2.Environment(extensions=[Generation, jinja2.ext.loopcontrols])
    for name in ("raise_exception", "strftime_now"):
        environment.globals[name] = None
    return environment
