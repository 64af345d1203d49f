"""Ranges of a profile as NVTX ranges, which Nsight Systems shows."""

from __future__ import annotations

from typing import Any

from gpunn.profiler.recorder import Range, Recorder


class NvtxRecorder(Recorder):
    """Keeps nothing: each call is a range of NVTX instead."""

    def start(self) -> None:
        from gpunn.cuda.detect import load

        self.nvtx = load().cuda.nvtx
        super().start()

    def begin(self, name: str, *args: Any, **kwargs: Any) -> Range:
        r = super().begin(name, *args, **kwargs)
        self.ranges.clear()
        self.nvtx.RangePush(f"{name}, sizes = {r.shapes}" if r.shapes else name)
        return r

    def end(self, r: Range) -> None:
        self.nvtx.RangePop()
        super().end(r)
