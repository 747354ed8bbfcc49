// A list of any length of which only the rows in sight are in the document. All rows are equally high.

import { el } from "./dom.js";

const BEYOND = 12;

export class VirtualList {
  // render(index) makes the element of a row. `scroller`: an element, or null for the window.
  constructor({ render, height, scroller = null, role = "rowgroup" }) {
    this.render = render;
    this.height = height;
    this.scroller = scroller;
    this.count = 0;
    this.active = -1;
    this.shown = new Map();
    this.node = el("div", { class: "vlist", role });
    this.onScroll = () => this.schedule();
    (scroller ?? window).addEventListener("scroll", this.onScroll, { passive: true });
    this.resize = new ResizeObserver(() => this.schedule());
    this.resize.observe(scroller ?? document.documentElement);
  }

  close() {
    (this.scroller ?? window).removeEventListener("scroll", this.onScroll);
    this.resize.disconnect();
  }

  // Shows `count` rows anew; rows may have changed.
  set(count) {
    const focused = this.node.contains(document.activeElement);
    this.count = count;
    this.node.style.height = `${count * this.height}px`;
    for (const row of this.shown.values()) row.remove();
    this.shown.clear();
    this.draw();
    if (focused && this.active >= 0 && this.active < count) this.row(this.active).focus({ preventScroll: true });
  }

  schedule() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.draw();
    });
  }

  span() {
    const top = this.scroller
      ? this.scroller.scrollTop - (this.node.offsetTop - this.scroller.offsetTop)
      : -this.node.getBoundingClientRect().top;
    const view = this.scroller ? this.scroller.clientHeight : window.innerHeight;
    return [Math.floor(top / this.height) - BEYOND, Math.ceil((top + view) / this.height) + BEYOND];
  }

  draw() {
    const [from, to] = this.span();
    const wanted = (index) => (index >= from && index < to) || index === this.active;
    for (const [index, row] of this.shown) {
      if (!wanted(index) && !row.contains(document.activeElement)) {
        row.remove();
        this.shown.delete(index);
      }
    }
    for (let index = Math.max(from, 0); index < Math.min(to, this.count); index += 1) this.row(index);
    if (this.active >= 0 && this.active < this.count) this.row(this.active);
  }

  row(index) {
    if (!this.shown.has(index)) {
      const row = this.render(index);
      row.style.transform = `translateY(${index * this.height}px)`;
      row.style.height = `${this.height}px`;
      this.shown.set(index, row);
      this.node.append(row);
    }
    return this.shown.get(index);
  }

  // Makes a row the active one, brings it into sight and, if asked, gives it the focus.
  activate(index, { focus = true } = {}) {
    if (!this.count) return;
    const next = Math.max(0, Math.min(index, this.count - 1));
    const before = this.shown.get(this.active);
    if (before) before.tabIndex = -1;
    this.active = next;
    const row = this.row(next);
    row.tabIndex = 0;
    this.reveal(next);
    if (focus) row.focus({ preventScroll: true });
  }

  reveal(index) {
    const top = index * this.height;
    if (this.scroller) {
      const begin = this.node.offsetTop - this.scroller.offsetTop + top;
      const view = this.scroller;
      if (begin < view.scrollTop) view.scrollTop = begin;
      else if (begin + this.height > view.scrollTop + view.clientHeight)
        view.scrollTop = begin + this.height - view.clientHeight;
      return;
    }
    const at = this.node.getBoundingClientRect().top + top;
    const head = 130;
    if (at < head) window.scrollBy(0, at - head);
    else if (at + this.height > window.innerHeight) window.scrollBy(0, at + this.height - window.innerHeight + 8);
  }

  // Arrow keys, Page Up and Down, Home and End. True if the key was one of them.
  key(event) {
    const page = Math.max(1, Math.floor((this.scroller?.clientHeight ?? window.innerHeight * 0.7) / this.height) - 1);
    const steps = {
      ArrowDown: 1,
      ArrowUp: -1,
      j: 1,
      k: -1,
      PageDown: page,
      PageUp: -page,
      Home: -this.count,
      End: this.count,
    };
    if (!(event.key in steps) || event.ctrlKey || event.metaKey || event.altKey) return false;
    this.activate(this.active < 0 ? 0 : this.active + steps[event.key]);
    event.preventDefault();
    return true;
  }
}
