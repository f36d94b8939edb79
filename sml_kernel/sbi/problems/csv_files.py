"""Weighted events in CSV: read by Arrow, and line by line once Arrow has refused them."""

from __future__ import annotations

import csv as lines_of
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
from pyarrow import csv

from sml_kernel.sbi.problems.columns import Layout, misplaced
from sml_kernel.sbi.problems.origins import InputError


def read_csv(path: Path, layout: Layout) -> pa.Table:
    """The columns that are wanted, or the error with line and column."""
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        header = next(lines_of.reader(file), [])
    if not header:
        raise InputError(f"{path} is empty; copy or make it again")
    kinds = {**dict.fromkeys(layout.features_in(path, header), "double"), **layout.kinds()}
    types = {name: pa.type_for_alias(kind) for name, kind in kinds.items()}
    try:
        return csv.read_csv(
            path,
            read_options=csv.ReadOptions(use_threads=False),
            parse_options=csv.ParseOptions(ignore_empty_lines=False),
            convert_options=csv.ConvertOptions(
                column_types=types, include_columns=list(types), null_values=[]
            ),
        )
    except pa.ArrowInvalid as error:
        raise _first_mistake(path, kinds) or InputError(
            f"{path} is no sound CSV file ({error}); make it again"
        ) from None


def _first_mistake(path: Path, kinds: Mapping[str, str]) -> InputError | None:
    """What is wrong with a CSV file, found line by line after Arrow has refused it."""
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        rows = lines_of.reader(file)
        header = next(rows)
        for row, fields in enumerate(rows):
            if len(fields) != len(header):
                column = header[min(len(fields), len(header) - 1)]
                what = f"{len(fields)} fields instead of {len(header)}; make the line again"
                return misplaced(path, row, column, what)
            for name, text in zip(header, fields, strict=True):
                what = _mistake(text, kinds.get(name, "string"))
                if what:
                    return misplaced(path, row, name, what)
    return None


def _mistake(text: str, kind: str) -> str:
    try:
        {"double": float, "int64": int, "string": str}[kind](text)
    except ValueError:
        called = "whole number" if kind == "int64" else "number"
        what = f"{text[:40]!r} is not a {called}" if text.strip() else "the value is missing"
        return f"{what}; repair it, or leave out the event, or name the columns in features=[…]"
    return ""
