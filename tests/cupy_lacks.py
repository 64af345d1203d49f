"""What CuPy lacks of NumPy, refused by the stand-in of emulated.py: names, keywords, dtypes.

Made with CuPy 14.2.0 and NumPy 2.4.6, which needs no GPU: NAMES, LINALG, METHODS, KEYWORDS, AT
and NO_COMPLEX are what `python tests/cupy_lacks.py` prints (it compares the two packages:
`hasattr`, the names in `inspect.signature`, the loops in `ufunc.types`). ONLY, AT_DTYPES and
TO_FLOAT32 are read off CuPy's sources and kernels' tables of dtypes.
"""

from __future__ import annotations

import inspect

NAMES = """
    False_ ScalarType True_ asmatrix block bmat busday_count busday_offset busdaycalendar bytes_
    char character clongdouble complex256 core ctypeslib datetime64 datetime_as_string
    datetime_data dtypes einsum_path emath errstate f2py flexible float128 frompyfunc fromregex
    geomspace get_include getbufsize geterr geterrcall histogram_bin_edges info insert is_busday
    isnat little_endian longdouble ma matrix matvec memmap nanpercentile nanquantile ndenumerate
    nditer nested_iters object_ polyder polydiv polyint rec recarray record sctypeDict setbufsize
    seterr seterrcall show_runtime spacing str_ strings test timedelta64 typecodes unstack vecdot
    vecmat void
    """

LINALG = """
    diagonal matrix_norm multi_dot outer svdvals tensordot test trace vecdot vector_norm
    """

METHODS = """
    __array_interface__ __array_namespace__ __array_struct__ __contains__ __imatmul__ __index__
    __setstate__ ctypes getfield resize setfield setflags to_device
    """

#: Function or method -> the keywords of NumPy's that CuPy's does not take.
KEYWORDS = {
    "all": "where", "amax": "initial where", "amin": "initial where", "any": "where",
    "arange": "start_or_stop", "argpartition": "kind order", "argsort": "order stable",
    "array": "ndmax", "array_str": "a", "broadcast_arrays": "subok", "broadcast_to": "subok",
    "cholesky": "upper", "clip": "max min", "concat": "arrays", "concatenate": "arrays",
    "copy": "subok", "corrcoef": "x", "count_nonzero": "keepdims", "cov": "m", "delete": "obj",
    "dot": "other", "ediff1d": "ary", "extract": "arr", "flip": "m", "fliplr": "m", "flipud": "m",
    "from_dlpack": "x", "histogram": "a", "indices": "sparse", "intersect1d": "ar1 ar2",
    "isin": "kind", "lexsort": "axis", "load": "encoding fix_imports max_header_size",
    "matmul": "x1 x2", "matrix_power": "a", "matrix_rank": "A hermitian rtol",
    "matrix_transpose": "x", "max": "initial where", "mean": "where", "min": "initial where",
    "nanmax": "initial where", "nanmean": "where", "nanmin": "initial where",
    "nanprod": "initial where", "nanstd": "correction mean where", "nansum": "initial where",
    "nanvar": "correction mean where", "partition": "kind order", "percentile": "weights",
    "piecewise": "kw", "pinv": "hermitian rtol", "prod": "initial where", "quantile": "weights",
    "reshape": "shape", "rot90": "m", "savez": "allow_pickle", "savez_compressed": "allow_pickle",
    "show_config": "mode", "sort": "order stable", "stack": "arrays",
    "std": "correction mean where", "sum": "initial where", "svd": "hermitian", "take": "mode",
    "take_along_axis": "arr", "transpose": "axes", "trim_zeros": "axis", "union1d": "ar1 ar2",
    "unique": "sorted", "unpackbits": "count", "unravel_index": "shape",
    "var": "correction mean where",
}  # fmt: skip

#: What a ufunc takes besides its arrays (NumPy's takes where, order, subok, axes, ..., too).
OPTIONS = {"out", "dtype", "casting"}

#: Method of a ufunc -> the ufuncs that have it.
ONLY = {"reduce": "add multiply", "accumulate": "add multiply", "reduceat": "add"}
AT = "add bitwise_and bitwise_or bitwise_xor maximum minimum subtract"
AT_DTYPES = "int32 uint32 uint64 float32 float64"  # float16, too, for add and subtract

#: Functions and ufuncs that take no complex numbers, where NumPy's do.
NO_COMPLEX = "clip logical_and logical_not logical_or logical_xor"

#: Functions whose result is float32 where the arrays are bfloat16.
TO_FLOAT32 = "around clip round where"


def _parameters(function):
    """The names of the parameters, or None where they cannot be read."""
    try:
        return set(inspect.signature(function).parameters)
    except (ValueError, TypeError):
        line = (getattr(function, "__doc__", None) or "").strip().partition("\n")[0]
        inner = line.partition("(")[2].partition(")")[0]
        names = {p.partition("=")[0].strip().rpartition(" ")[2] for p in inner.split(",")}
        return names or None


def _keywords(ours, theirs):
    """Name -> the keywords that the function of one namespace takes and the other's does not."""
    found = {}
    for name in dir(ours):
        mine, other = getattr(ours, name), getattr(theirs, name, None)
        plain = callable(mine) and not isinstance(mine, type) and not hasattr(mine, "nin")
        if name.startswith("_") or not plain or other is None:
            continue
        takes, accepts = _parameters(mine), _parameters(other)
        if takes and accepts and "kwargs" not in accepts:
            lacking = takes - accepts - {"self", "args", "kwargs", "like", "device", "object"}
            found |= {name: " ".join(sorted(lacking))} if lacking else {}
    return found


def _public(space):
    return [name for name in dir(space) if not name.startswith("_")]


def main():
    """Prints the tables of the CuPy and the NumPy that are installed."""
    import cupy
    import numpy as np

    print("NAMES", *(n for n in _public(np) if not hasattr(cupy, n)))
    print("LINALG", *(n for n in _public(np.linalg) if not hasattr(cupy.linalg, n)))
    print("METHODS", *(n for n in dir(np.ndarray) if not hasattr(cupy.ndarray, n)))
    tables = [(np, cupy), (np.linalg, cupy.linalg), (np.ndarray, cupy.ndarray)]
    print("KEYWORDS", {n: k for pair in tables for n, k in _keywords(*pair).items()})
    both = {n: (getattr(np, n), getattr(cupy, n, None)) for n in _public(np)}
    kinds = np.ufunc, cupy.ufunc
    ufuncs = {n: g for n, (f, g) in both.items() if (type(f), type(g)) == kinds}
    print("AT", *(n for n, f in ufuncs.items() if f._scatter_op))
    numpys = [n for n in ufuncs if any("F" in t for t in getattr(np, n).types)]
    print("NO_COMPLEX", *(n for n in numpys if not any("F" in t for t in ufuncs[n].types)))


if __name__ == "__main__":
    main()
