"""Weighted events in parquet."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sml_kernel.sbi.problems.columns import Layout, typed
from sml_kernel.sbi.problems.origins import InputError


def read_parquet(path: Path, layout: Layout) -> pa.Table:
    """The columns that are wanted, or the error with row and column."""
    try:
        with pq.ParquetFile(path) as file:
            names = layout.features_in(path, file.schema_arrow.names)
            kinds = {**dict.fromkeys(names, "double"), **layout.kinds()}
            table = file.read(columns=list(kinds))
    except FileNotFoundError:
        raise
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path} is no sound parquet file ({error}); make it again") from None
    columns = [typed(path, name, table[name], kind) for name, kind in kinds.items()]
    return pa.table(columns, names=list(kinds))
