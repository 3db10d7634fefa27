// Tables whose rows come and go: each row has a key, and only what has changed is drawn again.

import { make, mark, write } from "./dom.js";

/**
 * `columns`: `{ head, cell(td, row), number, title, sort(row) }`; the first is the row's header. A column with `sort` can be
 * sorted by. `fold` rows are shown until all are asked for with the button `more`. Without `heads` the table has its own.
 */
export class Table {
  constructor(table, { columns, key, fold = Infinity, more, sorted, none, heads = true }) {
    Object.assign(this, { table, columns, key, fold, more, none, open: false, rows: [], made: new Map() });
    this.by = sorted ?? null;
    this.body = make("tbody");
    this.heads = columns.map((column) => this.head(column));
    if (heads) table.append(make("thead", {}, make("tr", {}, ...this.heads)));
    table.append(this.body);
    more?.addEventListener("click", () => {
      this.open = !this.open;
      this.draw();
    });
    this.markSorted();
  }

  head(column) {
    const attributes = { scope: "col", class: column.number ? "number" : null, title: column.title };
    if (!column.sort) return make("th", attributes, column.head);
    return make("th", attributes, make("button", { type: "button", onclick: () => this.sort(column) }, column.head));
  }

  sort(column) {
    const same = this.by?.column === column.head;
    this.by = { column: column.head, down: same ? !this.by.down : Boolean(column.number) };
    this.markSorted();
    this.draw();
  }

  markSorted() {
    this.columns.forEach((column, index) => {
      const order = this.by?.column === column.head ? (this.by.down ? "descending" : "ascending") : null;
      mark(this.heads[index], "aria-sort", order);
    });
  }

  show(rows) {
    this.rows = rows;
    this.draw();
  }

  draw() {
    const rows = this.inOrder();
    const shown = this.open ? rows : rows.slice(0, this.fold);
    const kept = new Set();
    shown.forEach((row, index) => {
      const key = this.key(row);
      kept.add(key);
      const made = this.made.get(key) ?? this.make(key);
      this.columns.forEach((column, at) => column.cell(made.cells[at], row));
      this.decorate?.(made.element, row);
      // Moving a row that is where it belongs would take the focus from what is in it.
      if (this.body.children[index] !== made.element) this.body.insertBefore(made.element, this.body.children[index] ?? null);
    });
    for (const [key, made] of this.made) {
      if (kept.has(key)) continue;
      made.element.remove();
      this.made.delete(key);
    }
    this.empty(shown.length === 0);
    this.fewer(rows.length);
  }

  inOrder() {
    const column = this.columns.find(({ head }) => head === this.by?.column);
    if (!column) return this.rows;
    const sign = this.by.down ? -1 : 1;
    const compare = (a, b) => {
      const [left, right] = [column.sort(a) ?? null, column.sort(b) ?? null];
      // What is not known comes last, whichever way.
      if (left === null || right === null) return (left === null) - (right === null);
      return sign * (typeof left === "string" ? left.localeCompare(right, "en", { numeric: true }) : left - right);
    };
    return [...this.rows].sort(compare);
  }

  make(key) {
    const cells = this.columns.map((column, index) => {
      const classes = [column.number && "number", column.wrap && "wrap", column.group && "group"].filter(Boolean);
      const attributes = { class: classes.join(" ") || null };
      return index === 0 ? make("th", { scope: "row", ...attributes }) : make("td", attributes);
    });
    const made = { element: make("tr", {}, ...cells), cells };
    this.made.set(key, made);
    return made;
  }

  empty(isEmpty) {
    if (!isEmpty) {
      this.nothing?.remove();
      this.nothing = null;
    } else if (!this.nothing) {
      this.nothing = make("tr", {}, make("td", { class: "none", colspan: this.columns.length }));
      this.body.append(this.nothing);
    }
    if (this.nothing) write(this.nothing.firstChild, typeof this.none === "function" ? this.none() : this.none);
  }

  fewer(count) {
    if (!this.more) return;
    this.more.hidden = count <= this.fold;
    write(this.more, this.open ? `Show the first ${this.fold} only` : `Show all ${count}`);
    mark(this.more, "aria-expanded", String(this.open));
  }
}

/** A column of text. */
export const text = (head, value, more = {}) => ({
  head, sort: value, cell: (cell, row) => write(cell, value(row) ?? "–"), ...more,
});

/** A column of numbers. */
export const number = (head, value, shown, more = {}) => ({
  head, number: true, sort: value, cell: (cell, row) => write(cell, shown(value(row) ?? null)), ...more,
});
