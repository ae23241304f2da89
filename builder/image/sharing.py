"""What images of the store share: the sizes of their layers, alone and together, and the tree that layers form.

A layer counts by its diff_id, in bytes of its tar. An image's shared size is that of the layers that another image has,
too; an image under several names shares nothing with itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from builder.image.config import diff_ids
from builder.image.describe import human_size, layer_sizes, short_id
from builder.image.stored import StoredImage
from cache.digest import Digest
from cache.namedtuple import NamedTuple
from cache.store import Store


class Sizes(NamedTuple):
    """Bytes of an image's layers: all of them, and those that no other image has."""

    size: int
    unique: int

    @property
    def shared(self) -> int:
        return self.size - self.unique


class Stack(NamedTuple):
    """The layers of one image, bottom first, with their sizes."""

    image: StoredImage
    layers: tuple[tuple[Digest, int], ...]


def stack_of(store: Store, image: StoredImage) -> Stack:
    """Return the layers of an image; a layer that is not unpacked counts with its blob's size."""
    return Stack(image, tuple(zip(diff_ids(image.config), layer_sizes(store, image), strict=True)))


def sizes_of(stacks: Mapping[str, Sequence[Stack]]) -> dict[str, Sizes]:
    """Return the sizes of images, or of indexes over several, by their ids."""
    layers = {name: {layer: size for each in group for layer, size in each.layers} for name, group in stacks.items()}
    owners: dict[Digest, int] = {}
    for sizes in layers.values():
        for layer in sizes:
            owners[layer] = owners.get(layer, 0) + 1
    return {
        name: Sizes(sum(sizes.values()), sum(size for layer, size in sizes.items() if owners[layer] == 1))
        for name, sizes in layers.items()
    }


class Node:
    """Layers that always come together, on others; `names` are the images that end here."""

    def __init__(self) -> None:
        self.layers: list[tuple[Digest, int]] = []
        self.names: list[str] = []
        self.children: dict[Digest, Node] = {}

    @property
    def size(self) -> int:
        return sum(size for _, size in self.layers)

    def document(self) -> dict[str, Any]:
        """The node and what stands on it as JSON."""
        return {
            "Layers": [str(layer) for layer, _ in self.layers],
            "Size": self.size,
            "Images": self.names,
            "Children": [child.document() for child in self.children.values()],
        }


def layer_tree(named: Sequence[tuple[str, Stack]]) -> Node:
    """Return the tree of the layers of images, each with what it is called. The root has no layer: images that are
    empty end there."""
    root = Node()
    for name, stack in named:
        node = root
        for layer, size in stack.layers:
            child = node.children.setdefault(layer, Node())
            child.layers = [(layer, size)]
            node = child
        node.names.append(name)
    for child in root.children.values():
        _join(child)
    return root


def _join(top: Node) -> None:
    """Make one node of those that only follow each other."""
    pending = [top]
    while pending:
        node = pending.pop()
        while not node.names and len(node.children) == 1:
            [child] = node.children.values()
            node.layers, node.names, node.children = node.layers + child.layers, child.names, child.children
        pending += node.children.values()


def tree_lines(root: Node) -> list[list[str]]:
    """Return a row for each node, children below what they stand on: the top layer, how many layers, their size, and
    the images that end there."""
    rows = [["(no layers)", "0", "0B", ", ".join(root.names)]] if root.names else []
    pending = [(node, "", "") for node in reversed(root.children.values())]
    while pending:
        node, mark, indent = pending.pop()
        label = f"{mark}{short_id(node.layers[-1][0])}"
        rows.append([label, str(len(node.layers)), human_size(node.size), ", ".join(node.names)])
        below = list(node.children.values())
        marked = [(each, f"{indent}├─ ", f"{indent}│  ") for each in below[:-1]]
        pending += [(each, f"{indent}└─ ", f"{indent}   ") for each in below[-1:]]
        pending += reversed(marked)
    return rows
