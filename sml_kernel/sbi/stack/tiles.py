"""Matrix products of small networks, in tiles whose sums stay in registers.

A tile of a product is 4 rows of 16 events: eight vectors of 8 are summed while two are loaded, so
that loads keep up with the arithmetic. On one core of an AMD EPYC 7003 a layer of 64 or 100 runs
at 66 to 89 GFLOP/s so, where MKL's product of 1024 x 1024 reaches 72 to 90, and one of 16 at 39.
Vectors are written out because compilers do not keep an array of sums in registers by themselves;
they are of 8 on every machine, and so is the order of sums.

Matrices are flat arrays of float32: place, stride of a row, stride of a step. Events lie one after
another; rows come by 4 and events by 16, what is missing is zeros.
"""

from __future__ import annotations

from typing import Any

import numba
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

#: Rows of a tile; widths are multiples of it.
ROWS = 4
#: Events of a tile; events are a multiple of it.
EVENTS = 16

_LANES = 8  # of a vector: AVX2 has these; elsewhere the compiler cuts or joins
_FLOAT = ir.FloatType()
_VECTOR = ir.VectorType(_FLOAT, _LANES)
_HALF = ir.VectorType(_FLOAT, 4)
_INT = ir.IntType(64)
_ARRAY, _WHERE = numba.float32[::1], numba.int64


@intrinsic
def product_tile(  # type: ignore[no-untyped-def]
    typing, matrix, at, row, step, columns, first, stride, steps, start, start_at, into, into_at
):
    """Σₖ matrix[at + r·row + k·step] · columns[first + k·stride + e], from `start[start_at + r]`.

    Written to `into[into_at + r·stride + e]` for rows r < 4 and events e < 16.
    """

    def code(context: Any, builder: ir.IRBuilder, signature: Any, given: Any) -> Any:
        code_of = _Code(context, builder, signature, given)
        starts = code_of.pointer(8)
        sums = [
            code_of.sums(code_of.repeated(builder.load(code_of.moved(starts, r))), 2)
            for r in range(ROWS)
        ]
        code_of.accumulate_product(sums)
        target = code_of.pointer(10)
        for r, two in enumerate(sums):
            for c, each in enumerate(two):
                code_of.store(builder.load(each), code_of.place(target, r, given[6], c))
        return context.get_dummy_value()

    return _signature("aiiiaiiiaiai"), code


@intrinsic
def scaled_tile(  # type: ignore[no-untyped-def]
    typing, matrix, at, row, step, columns, first, stride, steps, into, into_at
):
    """The same from 0, which multiplies what `into` holds: a gradient on its way back."""

    def code(context: Any, builder: ir.IRBuilder, signature: Any, given: Any) -> Any:
        code_of = _Code(context, builder, signature, given)
        sums = [code_of.sums(ir.Constant(_VECTOR, None), 2) for _ in range(ROWS)]
        code_of.accumulate_product(sums)
        target = code_of.pointer(8)
        for r, two in enumerate(sums):
            for c, each in enumerate(two):
                place = code_of.place(target, r, given[6], c)
                code_of.store(builder.fmul(builder.load(each), code_of.load(place)), place)
        return context.get_dummy_value()

    return _signature("aiiiaiiiai"), code


@intrinsic
def outer_tile(  # type: ignore[no-untyped-def]
    typing, left, left_at, right, right_at, stride, events, into, into_at, width
):
    """Add Σₑ left[left_at + r·stride + e] · right[right_at + c·stride + e], a weight's gradient.

    To `into[into_at + r·width + c]` for r < 2 and c < 4. Eight vectors of partial sums are folded
    into one with the eight results: 14 shuffles and 7 additions in place of 24 and 24.
    """

    def code(context: Any, builder: ir.IRBuilder, signature: Any, given: Any) -> Any:
        code_of = _Code(context, builder, signature, given)
        left, right = code_of.pointer(0), code_of.pointer(2)
        sums = [code_of.sums(ir.Constant(_VECTOR, None), 4) for _ in range(2)]
        vectors = builder.sdiv(given[5], ir.Constant(_INT, _LANES))
        with cgutils.for_range(builder, vectors, intp=_INT) as loop:
            here = builder.mul(loop.index, ir.Constant(_INT, _LANES))
            lefts, rights = (
                [
                    code_of.load(code_of.place(code_of.moved(of, here), r, given[4]))
                    for r in range(n)
                ]
                for of, n in ((left, 2), (right, 4))
            )
            for r, four in enumerate(sums):
                for c, each in enumerate(four):
                    code_of.multiply_add(each, lefts[r], rights[c])
        partial = [builder.load(each) for four in sums for each in four]
        while len(partial) > 1:
            partial = [
                code_of.folded(*pair, len(partial))
                for pair in zip(partial[::2], partial[1::2], strict=True)
            ]
        target = code_of.pointer(6)
        for r in range(2):
            place = builder.bitcast(code_of.place(target, r, given[8]), _HALF.as_pointer())
            mask = ir.Constant(ir.VectorType(ir.IntType(32), 4), list(range(4 * r, 4 * r + 4)))
            half = builder.shuffle_vector(partial[0], partial[0], mask)
            before = builder.load(place)
            before.align = 4
            builder.store(builder.fadd(before, half), place).align = 4
        return context.get_dummy_value()

    return _signature("aiaiiiaii"), code


def _signature(arguments: str) -> Any:
    """Of nothing returned; ``a`` is an array, ``i`` an integer."""
    return numba.void(*({"a": _ARRAY, "i": _WHERE}[each] for each in arguments))


class _Code:
    """Writes the instructions of one tile."""

    def __init__(self, context: Any, builder: ir.IRBuilder, signature: Any, given: Any) -> None:
        self._context, self._builder = context, builder
        self._types, self._given = signature.args, given
        kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
        # fused where the machine can, and rounded twice where it cannot
        name = f"llvm.fmuladd.v{_LANES}f32"
        self._fused = cgutils.get_or_insert_function(builder.module, kind, name)

    def pointer(self, number: int) -> Any:
        """To the element of array argument `number` that the argument after it names."""
        array = self._context.make_array(self._types[number])
        data = array(self._context, self._builder, self._given[number]).data
        return self._builder.gep(data, [self._given[number + 1]])

    def moved(self, pointer: Any, by: Any) -> Any:
        by = ir.Constant(_INT, by) if isinstance(by, int) else by
        return self._builder.gep(pointer, [by])

    def place(self, pointer: Any, row: int, stride: Any, vector: int = 0) -> Any:
        """Where a vector of a row begins."""
        rows = self._builder.mul(stride, ir.Constant(_INT, row))
        return self.moved(self.moved(pointer, rows), _LANES * vector)

    def load(self, pointer: Any) -> Any:
        found = self._builder.load(self._builder.bitcast(pointer, _VECTOR.as_pointer()))
        found.align = 4
        return found

    def store(self, value: Any, pointer: Any) -> None:
        place = self._builder.bitcast(pointer, _VECTOR.as_pointer())
        self._builder.store(value, place).align = 4

    def rows(self, pointer: Any, stride: Any, count: int) -> list[Any]:
        return [self.load(self.place(pointer, row, stride)) for row in range(count)]

    def repeated(self, number: Any) -> Any:
        """A vector of one number."""
        undefined = ir.Constant(_VECTOR, ir.Undefined)
        first = self._builder.insert_element(undefined, number, ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), _LANES), [0] * _LANES)
        return self._builder.shuffle_vector(first, undefined, zeros)

    def sums(self, start: Any, count: int) -> list[Any]:
        """Variables, which the compiler makes registers."""
        made = [cgutils.alloca_once(self._builder, _VECTOR) for _ in range(count)]
        for each in made:
            self._builder.store(start, each)
        return made

    def multiply_add(self, total: Any, one: Any, other: Any) -> None:
        builder = self._builder
        builder.store(builder.call(self._fused, [one, other, builder.load(total)]), total)

    def accumulate_product(self, sums: list[list[Any]]) -> None:
        """The loop over k of `product_tile`, whose first eight arguments are given."""
        builder, (row, step, stride, steps) = self._builder, (self._given[n] for n in (2, 3, 6, 7))
        matrix, columns = self.pointer(0), self.pointer(4)
        with cgutils.for_range(builder, steps, intp=_INT) as loop:
            here = self.moved(columns, builder.mul(loop.index, stride))
            vectors = [self.load(self.moved(here, _LANES * c)) for c in range(len(sums[0]))]
            weights = self.moved(matrix, builder.mul(loop.index, step))
            for r, some in enumerate(sums):
                weight = self.repeated(builder.load(self.place(weights, r, row)))
                for total, vector in zip(some, vectors, strict=True):
                    self.multiply_add(total, weight, vector)

    def folded(self, one: Any, other: Any, group: int) -> Any:
        """Halves of each group of lanes added: first those of `one`, then those of `other`."""
        lanes = [start + n for start in range(0, 2 * _LANES, group) for n in range(group // 2)]
        low, high = (
            self._builder.shuffle_vector(
                one,
                other,
                ir.Constant(ir.VectorType(ir.IntType(32), _LANES), [n + shift for n in lanes]),
            )
            for shift in (0, group // 2)
        )
        return self._builder.fadd(low, high)
