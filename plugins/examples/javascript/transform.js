// Trims text columns and writes them in lower case.

const decoder = new TextDecoder();
const encoder = new TextEncoder();
// An instance is configured once, before any table is bound.
let columns = [];

class Binding {
  constructor(table) {
    const names = table.fields.map((field) => field.name);
    this.reads = columns.map((column) => {
      const index = names.indexOf(column);
      const where = `table \`${table.database}.${table.name}\``;
      if (index < 0) {
        throw unsupported(`column \`${column}\` does not exist in ${where}`);
      }
      const type = table.fields[index].dataType;
      if (type.tag !== 'plain' || type.val.tag !== 'utf8') {
        throw unsupported(`column \`${column}\` is not text`);
      }
      return index;
    });
    this.fields = this.reads.map((index) => table.fields[index]);
  }

  shape() {
    return {
      reads: this.reads,
      cardinality: 'same-rows',
      writes: this.reads.map((index, place) => [index, this.fields[place]]),
      targets: [],
    };
  }

  transform(batch) {
    const written = batch.columns.map((column, write) => [write, tidy(column, batch.rowCount)]);
    return { verdict: { tag: 'rows', val: { keep: undefined, columns: written } }, rejected: [] };
  }
}

export const plugin = {
  Binding,

  describe() {
    return { name: 'tidy', version: '0.1.0', configSchema: undefined };
  },

  configure(json) {
    const config = JSON.parse(json);
    const problems = Object.keys(config)
      .filter((key) => key !== 'columns')
      .map((key) => ({ path: `/${key}`, message: 'is no setting of this plugin' }));
    if (!Array.isArray(config.columns) || config.columns.length === 0) {
      problems.push({ path: '/columns', message: 'name at least one column' });
    }
    if (problems.length > 0) {
      throw problems;
    }
    columns = config.columns;
  },

  bindTable(table) {
    return new Binding(table);
  },
};

function unsupported(message) {
  return { tag: 'unsupported', val: message };
}

// A NULL has no bytes, so it stays as it is: only lengths and bytes change.
function tidy(column, rowCount) {
  const offsets = new DataView(column.offsets.buffer, column.offsets.byteOffset);
  const parts = [];
  const ends = new DataView(new ArrayBuffer(4 * (rowCount + 1)));
  let end = 0;
  for (let row = 0; row < rowCount; row += 1) {
    const [start, stop] = [offsets.getUint32(4 * row, true), offsets.getUint32(4 * row + 4, true)];
    const value = column.values.subarray(start, stop);
    const part = encoder.encode(decoder.decode(value).trim().toLowerCase());
    parts.push(part);
    end += part.length;
    ends.setUint32(4 * (row + 1), end, true);
  }
  const values = new Uint8Array(end);
  let at = 0;
  for (const part of parts) {
    values.set(part, at);
    at += part.length;
  }
  return {
    validity: column.validity,
    absent: undefined,
    offsets: new Uint8Array(ends.buffer),
    values,
    childValidity: undefined,
    childOffsets: undefined,
  };
}
