"""The graph of a model's modules in one forward, as a picture."""

from __future__ import annotations

import re
from collections import Counter, OrderedDict
from collections.abc import Iterable
from typing import Any

from gpunn import autograd, dtypes
from gpunn.autograd.graph import Node, Output, _clock, result, vertex
from gpunn.autograd.graph import vjp as declare
from gpunn.cuda.memory import human
from gpunn.model_recorder import restored, shapes, tensors_in
from gpunn.nn.parameter import Parameter, is_lazy
from gpunn.ops.create import zeros
from gpunn.tensor import Tensor, root
from gpunn.utils.autograd_graph import facts, leaf_vertex, saved_arrays
from gpunn.utils.graph_collapse import fitted
from gpunn.utils.graph_picture import Box, Edge, Picture, Vertex, shape_of
from gpunn.utils.graph_text import outline

__all__ = ["module_picture"]


def module_picture(
    model: Any, args: tuple[Any, ...], kwargs: dict[str, Any], depth: int | None, max_vertices: int
) -> Picture:
    """The calls of modules and the operations between them, in one forward in eval mode.

    The model is left as it was. RuntimeError, with the layer, where the forward raises.

    >>> from gpunn.utils.module_graph import module_picture
    >>> picture = module_picture(nn.ReLU(), (gpunn.ones(2),), {}, None, 10)
    >>> [vertex.title for vertex in picture.vertices]
    ['input', 'ReLU', 'output']
    """
    if type(model).__module__.startswith("gpunn.nn.parallel."):
        model = model.module  # replicas run elsewhere
    recorder = _Recorder(model)
    recorder.run(args, kwargs)
    recorder.draw()
    vertices = sorted(recorder.vertices, key=lambda v: v.order)
    vertices, edges, notes = fitted(vertices, recorder.edges, depth, max_vertices)
    return Picture(vertices, edges, [*recorder.notes(), *notes], outline)


@declare(name="MarkBackward0")
def _mark_vjp(g: Any) -> Any:
    return g


class _Call:
    """A call of a module that has begun."""

    def __init__(self, path: str, box: Box, reads: list[Any]) -> None:
        self.path = path  # of the module
        self.box = box
        self.reads = reads
        self.inner = False


class _Recorder:
    """One forward. What a module gives out is marked by a node of its own in the autograd graph,
    so that a later module's input leads back to it through whatever happened in between."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.seed = zeros(1).requires_grad_()
        self.vertices: list[Vertex] = []
        self.edges: list[Edge] = []
        self.running: list[_Call] = []
        self.boxes: list[tuple[int, int, Box]] = []  # calls of containers: begin, end
        self.made: dict[Any, Vertex] = {self.seed: Vertex("tensor", "")}  # by node
        self.memories: dict[int, Vertex] = {}  # the last to write a memory, for what has no node
        self.kept: list[Any] = []  # owners of memory: their ids stay their own
        self.reads: list[tuple[Any, Vertex]] = []
        self.times: Counter[str] = Counter()
        self.saved: dict[int, int] = {}
        members = [*model.named_parameters(), *model.named_buffers()]
        self.names = {id(t): name for name, t in members}
        self.owners = {id(root(t.array)): t for _, t in members if not is_lazy(t)}

    # --- the forward ------------------------------------------------------------------------

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        handles: list[Any] = []
        with restored(self.model):
            try:
                for path, module in self.model.named_modules():
                    handles += self.watch(module, path)
                self.model.eval()
                with autograd.enable_grad():
                    names = _argument_names(self.model, len(args))
                    args = tuple(self.input(a, name) for a, name in zip(args, names, strict=True))
                    kwargs = {name: self.input(a, name) for name, a in kwargs.items()}
                    out = self.model(*args, **kwargs)
                    self.output(out)
            except Exception as error:
                raise self.failure(args, kwargs, error) from error
            finally:
                for handle in handles:
                    handle.remove()

    def failure(self, args: Any, kwargs: Any, error: Exception) -> RuntimeError:
        given = ", ".join([shapes(a) for a in args] + [f"{k}={shapes(kwargs[k])}" for k in kwargs])
        path = error.__dict__.get("_raised_in", ("", "", ""))[2]  # Module's call notes it
        where = f", in layer {path}" if path else ""
        return RuntimeError(
            f"draw_graph: the forward of {type(self.model).__name__} on {given} raised "
            f"{type(error).__name__}{where}: {error}"
        )

    def watch(self, module: Any, path: str) -> list[Any]:
        kind = type(module).__name__

        def before(module: Any, args: Any, kwargs: Any) -> None:
            self.times[path] += 1
            again = f" (call {self.times[path]})" if self.times[path] > 1 else ""
            outer = self.running[-1] if self.running else None
            # a list of modules is not called, so it is part of the name
            name = path.removeprefix(f"{outer.path}." if outer and outer.path else "")
            title = f"{name}: {kind}{again}" if path else kind + again
            around = outer.box if outer else None
            box = Box(title, _parameters(module), order=_clock(), parent=around)
            given = tensors_in([args, kwargs])
            box.shapes = _counted(map(_label, given))
            if outer is not None:
                outer.inner = True
            self.running.append(_Call(path, box, [self.read(t) for t in given]))

        def after(module: Any, args: Any, kwargs: Any, out: Any) -> Any:
            if self.running[-1].path != path:  # a hook before ours raised
                return None
            call = self.running.pop()
            if out is None:  # it raised, and its caller may go on; or it gives nothing to draw
                return None
            box = call.box
            box.shapes += " → " + (_counted(map(_label, tensors_in(out))) or shapes(out))
            if call.inner:
                self.boxes.append((int(box.order), _clock(), box))
                return None
            size = self.saved_since(box.order, out)
            lines = [*box.lines, f"saves {human(size)}"] if size else box.lines
            made = Vertex("module", box.title, lines, box.shapes, box.order, box.parent)
            self.vertices.append(made)
            self.reads += [(read, made) for read in call.reads]
            return self.marked(out, made)

        return [
            module.register_forward_pre_hook(before, with_kwargs=True),
            module.register_forward_hook(after, with_kwargs=True, always_call=True),
        ]

    def read(self, t: Tensor) -> tuple[Any, int, Tensor, str]:
        """Where a tensor is in the graph now, its memory, itself and its shape."""
        return vertex(t), self.memory(t), t, _label(t)

    def memory(self, t: Tensor) -> int:
        """What the views of a memory have in common; the memory stays."""
        owner = t if t.is_sparse or is_lazy(t) else root(t.array)
        self.kept.append(owner)
        return id(owner)

    def input(self, value: Any, name: str) -> Any:
        count = len(tensors_in(value))
        for i, t in enumerate(tensors_in(value)):
            title = name if count == 1 else f"{name}[{i}]"
            made = Vertex("input", title, [facts(t)], order=_clock())
            self.vertices.append(made)
            value = _replaced(value, lambda x, t=t, v=made: self.mark(x, v) if x is t else x)
        return value

    def output(self, out: Any) -> None:
        found = tensors_in(out)
        for i, t in enumerate(found):
            title = "output" if len(found) == 1 else f"output {i}"
            made = Vertex("result", title, [facts(t)], order=_clock())
            self.vertices.append(made)
            self.reads.append((self.read(t), made))

    # --- marks ------------------------------------------------------------------------------

    def marked(self, value: Any, made: Vertex) -> Any:
        return _replaced(value, lambda t: self.mark(t, made))

    def mark(self, t: Tensor, made: Vertex) -> Tensor:
        self.memories[self.memory(t)] = made
        plain = type(t) in (Tensor, Parameter) and t.dtype.category >= dtypes.FLOATING
        if not plain or not autograd.is_grad_enabled():
            return t
        out = result(t.array, t, _mark_vjp, (t if t.requires_grad else self.seed,))
        self.made[out.node] = made
        return out

    def saved_since(self, order: float, out: Any) -> int:
        """Bytes that the nodes of one call keep for backward, the model's own not counted."""
        kept: dict[int, int] = {}
        stack = [vertex(t) for t in tensors_in(out)]
        seen = set()
        while stack:
            place = stack.pop()
            node = place.node if type(place) is Output else place
            if not isinstance(node, Node) or node in seen or node.seq < order or node in self.made:
                continue
            seen.add(node)
            stack += node.parents
            for array in saved_arrays(node.saved):
                owner = root(array)
                if id(owner) not in self.owners:
                    kept[id(owner)] = owner.nbytes
                    self.kept.append(owner)
        self.saved.update(kept)
        return sum(kept.values())

    # --- the graph --------------------------------------------------------------------------

    def draw(self) -> None:
        """Follows every input back to the modules, operations and tensors that it comes from."""
        for (place, memory, t, label), reader in self.reads:  # it grows on the way
            source = self.known(place, memory, t, reader)
            if source is not reader:
                self.edges.append(Edge(source, reader, label))
        self.edges = _merged(self.edges)

    def known(self, place: Any, memory: int, t: Tensor | None, reader: Vertex) -> Vertex:
        node = place.node if type(place) is Output else place
        if node in self.made:
            return self.made[node]
        if isinstance(node, Node):
            return self.operation(node)
        if node is None and memory in self.memories:
            return self.memories[memory]
        leaf: Any = self.owners.get(memory, t if node is None else node)
        if id(leaf) in self.names:
            made = leaf_vertex(leaf, self.names[id(leaf)])
        else:
            made = Vertex("tensor", "tensor", [facts(leaf), "made in forward"])
        made.order, made.box = reader.order - 0.5, reader.box
        self.made[leaf if node is None else node] = made
        self.memories.setdefault(memory, made)
        self.vertices.append(made)
        return made

    def operation(self, node: Node) -> Vertex:
        """An operation between modules, in the box of the call that ran it."""
        name = re.sub(r"Backward\d*$", "", node.name())
        title = re.sub(r"(?<=[a-z\d])(?=[A-Z][a-z])", "_", name).lower()
        around = [(begin, box) for begin, end, box in self.boxes if begin < node.seq < end]
        box = max(around, key=lambda found: found[0])[1] if around else None
        made = Vertex("operation", title, order=node.seq, box=box)
        self.made[node] = made
        self.vertices.append(made)
        for parent in node.parents:
            if parent is not None and parent is not self.seed:
                self.reads.append(((parent, 0, None, ""), made))
        return made

    def notes(self) -> list[str]:
        total = sum(self.saved.values())
        return [f"Kept for backward by these layers, in eval mode: {human(total)}"] if total else []


def _label(t: Tensor) -> str:
    return str(tuple(t.shape)) if t.dtype is dtypes.float32 else shape_of(t)


def _parameters(module: Any) -> list[str]:
    parameters = [p for p in module.parameters() if not is_lazy(p)]
    if not parameters:
        return []
    frozen = sum(p.numel() for p in parameters if not p.requires_grad)
    count = sum(p.numel() for p in parameters)
    some = "" if not frozen else ", frozen" if frozen == count else f", {frozen:,} frozen"
    return [f"{count:,} parameters{some}"]


def _replaced(value: Any, new: Any) -> Any:
    """A nested value with its tensors replaced; of unknown kinds the same value."""
    if isinstance(value, Tensor):
        return new(value)
    fields = getattr(type(value), "_fields", ()) if isinstance(value, tuple) else ()
    if fields:
        return value._replace(**{f: _replaced(getattr(value, f), new) for f in fields})
    if type(value) in (tuple, list):
        return type(value)(_replaced(item, new) for item in value)
    if type(value) in (dict, OrderedDict):
        return type(value)((key, _replaced(item, new)) for key, item in value.items())
    for t in tensors_in(value):
        new(t)
    return value


def _argument_names(model: Any, count: int) -> list[str]:
    """What forward calls its arguments."""
    import inspect

    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(model.forward).parameters.values()
    known = [p.name for p in parameters if p.kind in kinds]
    return known[:count] + [f"input {i}" for i in range(len(known), count)]


def _counted(texts: Iterable[str]) -> str:
    """Texts in a row; one that comes several times is counted: "3 × (2, 4)"."""
    return ", ".join(t if n == 1 else f"{n} × {t}" for t, n in Counter(texts).items())


def _merged(edges: list[Edge]) -> list[Edge]:
    """One edge between two vertices."""
    labels: dict[tuple[Vertex, Vertex], list[str]] = {}
    for edge in edges:
        labels.setdefault((edge.source, edge.target), []).append(edge.label)
    return [Edge(*ends, _counted(filter(None, several))) for ends, several in labels.items()]
