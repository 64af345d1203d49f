"""Compiled kernels in this process: the runtime's and the kernels' libraries, through ctypes."""

from __future__ import annotations

import ctypes
import functools
import re
import subprocess
from ctypes import (
    CDLL,
    CFUNCTYPE,
    POINTER,
    Structure,
    c_char_p,
    c_int,
    c_longlong,
    c_size_t,
    c_uint,
    c_void_p,
)  # fmt: skip
from pathlib import Path

from . import compiler

# The structures of runtime/state.h.


class SharedVariable(Structure):
    _fields_ = [("name", c_char_p), ("offset", c_size_t), ("bytes", c_size_t)]


class Module(Structure):
    _fields_ = [
        ("low", c_void_p),
        ("high", c_void_p),
        ("dynamic", c_void_p),
        ("dynamic_offset", c_size_t),
        ("storage_bytes", c_size_t),
        ("shared", POINTER(SharedVariable)),
        ("shared_count", c_int),
    ]


class Buffer(Structure):
    _fields_ = [
        ("data", c_void_p),
        ("bytes", c_size_t),
        ("name", c_char_p),
        ("writable", c_int),
    ]


class Patch(Structure):
    _fields_ = [("where", c_void_p), ("buffer", c_int), ("offset", c_size_t)]


class Request(Structure):
    _fields_ = [
        ("module", POINTER(Module)),
        ("kernel", c_void_p),
        ("arguments", POINTER(c_void_p)),
        ("grid", c_uint * 3),
        ("block", c_uint * 3),
        ("shared", c_size_t),
        ("check", c_int),
        ("order", c_int),
        ("seed", c_uint),
        ("timeout", c_int),
        ("buffers", POINTER(Buffer)),
        ("buffer_count", c_int),
        ("patches", POINTER(Patch)),
        ("patch_count", c_int),
    ]


@functools.cache
def runtime() -> CDLL:
    loaded = CDLL(str(compiler.runtime()))
    loaded.emulator_launch.argtypes = [POINTER(Request)]
    loaded.emulator_messages.restype = c_char_p
    loaded.emulator_image.argtypes = [c_void_p, POINTER(c_void_p), POINTER(c_void_p)]
    return loaded


def _address(function) -> int:
    return ctypes.cast(function, c_void_p).value


def _is_header(place: Path) -> bool:
    """Of the emulator or of CUDA: those lie on disk, the kernels' files are names in #line."""
    return Path(str(place).rsplit(":", 1)[0]).is_file()


class Library:
    """The library of one text, in one build."""

    def __init__(self, path: Path, facts: dict):
        self.runtime = runtime()
        self.path = path
        self._loaded = CDLL(str(path))
        self._shared = facts["shared"]  # rows of FUNCTION::NAME, place, bytes
        variables = [(n.split("::")[-1].encode(), place, size) for n, place, size in self._shared]
        dynamic, low, high = _address(self._loaded.emulator_dynamic), c_void_p(), c_void_p()
        self.runtime.emulator_image(dynamic, low, high)
        self.module = Module(
            low.value,
            high.value,
            dynamic,
            facts["dynamic"],
            facts["storage"],
            (SharedVariable * len(variables))(*variables),
            len(variables),
        )

    def thread(self, kernel: str) -> int:
        """The address of the function that runs one thread of a kernel."""
        return _address(getattr(self._loaded, f"emulator_thread_{kernel}"))

    def signature(self, kernel: str) -> list[str]:
        """The types of a kernel's parameters."""
        describe = CFUNCTYPE(c_char_p)((f"emulator_signature_{kernel}", self._loaded))
        return describe().decode().split()

    def bound(self, kernel: str) -> int:
        """The most threads of a block."""
        return CFUNCTYPE(c_longlong)((f"emulator_bound_{kernel}", self._loaded))()

    def static_shared(self, kernel: str) -> int:
        """Bytes of the kernel's own shared variables."""
        return sum(size for name, _, size in self._shared if name.startswith(f"{kernel}::"))

    def launch(self, request: Request) -> str | None:
        """None, or what went wrong."""
        if not self.runtime.emulator_launch(request):
            return None
        return self._with_lines(self.runtime.emulator_messages().decode().strip())

    def _with_lines(self, text: str) -> str:
        """The text with lines in the place of addresses: [+0x..]; of a caller: [^0x..]."""
        text = re.sub(r"\[\+(0x[0-9a-f]+)\]", lambda found: f"at {self._line(found[1])}", text)
        return re.sub(r"\[\^(0x[0-9a-f]+)\]", lambda found: self._caller(found[1]), text)

    def _caller(self, address: str) -> str:
        _, bracket, caller = self._line(address).partition(" (")
        return bracket + caller

    @functools.lru_cache(256)  # noqa: B019  libraries stay loaded
    def _line(self, address: str) -> str:
        """The kernel's line at an address; where it was called, if that is in another file."""
        command = ["addr2line", "-i", "-e", str(self.path), address]
        frames = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
        frames = [frame.partition(" (discriminator")[0] for frame in frames if "??" not in frame]
        places = [Path(frame) for frame in frames]
        places = [place.name for place in places if not _is_header(place)]
        if not places:
            return "an unknown line"
        inner, outer = places[0], places[-1]
        same_file = inner.split(":")[0] == outer.split(":")[0]
        return inner if same_file else f"{inner} (called at {outer})"
