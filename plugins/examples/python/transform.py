"""Trims text columns and writes them in lower case."""

import json
from struct import pack, unpack_from

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import types

# An instance is configured once, before any table is bound.
COLUMNS = []


class Plugin(exports.Plugin):
    """What the component exports."""

    def describe(self) -> types.Info:
        return types.Info(name="tidy", version="0.1.0", config_schema=None)

    def configure(self, json_text: str) -> None:
        global COLUMNS
        config = json.loads(json_text)
        columns = config.get("columns")
        problems = [
            types.Problem(path=f"/{key}", message="is no setting of this plugin")
            for key in config
            if key != "columns"
        ]
        if not isinstance(columns, list) or not columns:
            problems.append(types.Problem(path="/columns", message="name at least one column"))
        if problems:
            raise Err(problems)
        COLUMNS = columns

    def bind_table(self, table: types.Table) -> exports.plugin.Binding:
        return Binding(table)


class Binding(exports.plugin.Binding):
    """The plugin, bound to one table."""

    def __init__(self, table: types.Table):
        names = [field.name for field in table.fields]
        self.reads = []
        for column in COLUMNS:
            where = f"table `{table.database}.{table.name}`"
            if column not in names:
                raise Err(types.Failure_Unsupported(f"column `{column}` does not exist in {where}"))
            index = names.index(column)
            if not isinstance(getattr(table.fields[index].data_type, "value", None), types.Scalar_Utf8):
                raise Err(types.Failure_Unsupported(f"column `{column}` is not text"))
            self.reads.append(index)
        self.fields = [table.fields[index] for index in self.reads]

    def shape(self) -> types.Shape:
        return types.Shape(
            reads=self.reads,
            cardinality=types.Cardinality.SAME_ROWS,
            writes=[(index, field) for index, field in zip(self.reads, self.fields)],
            targets=[],
        )

    def transform(self, batch: types.Batch) -> types.Outcome:
        columns = [(write, tidy(column, batch.row_count)) for write, column in enumerate(batch.columns)]
        rows = types.Rows(keep=None, columns=columns)
        return types.Outcome(verdict=types.Verdict_Rows(rows), rejected=[])


def tidy(column: types.Column, row_count: int) -> types.Column:
    """A NULL has no bytes, so it stays as it is: only lengths and bytes change."""
    offsets = unpack_from(f"<{row_count + 1}I", column.offsets)
    values = column.values
    parts = [
        values[start:end].decode().strip().lower().encode()
        for start, end in zip(offsets, offsets[1:])
    ]
    ends = [0]
    for part in parts:
        ends.append(ends[-1] + len(part))
    return types.Column(
        validity=column.validity,
        absent=None,
        offsets=pack(f"<{len(ends)}I", *ends),
        values=b"".join(parts),
        child_validity=None,
        child_offsets=None,
    )
