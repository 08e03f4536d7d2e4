/** Sliders over a figure whose every position was computed beforehand: vaelib/sliders.py. */
class Sliders {
  constructor(root, spec, table, at, tell) {
    Object.assign(this, { root, spec, table, tell });
    this.id = newId();
    this.at = Array.from(at);
    this.say = begin(root, spec.title);
    this.plot = element("canvas", { class: "plot", role: "img" });
    this.where = element("p", { class: "where" }); // for paper, which shows no slider
    root.append(element("p", { class: "title" }, spec.title), this.where);
    if (spec.series.length) {
      root.append(this.plot);
      this.addLegend();
    }
    this.inputs = spec.sliders.map(({ name, values }, k) => {
      const range = { min: 0, max: values.length - 1, step: 1, value: this.at[k] };
      const [row, input] = slider(`${this.id}-${k}`, name, range, (index) => {
        this.at[k] = index;
        this.update();
      });
      const value = element("span", { class: "value", "aria-hidden": "true" });
      row.append(value);
      root.append(row);
      return { input, value };
    });
    this.addNumbers();
    if (spec.film) {
      const canvas = element("canvas", { class: "film", role: "img" });
      this.show = film(canvas, spec.film, () => `${spec.film.label}, at ${this.said()}`);
      root.append(element("p", {}, spec.film.label), canvas);
    }
    onSize(this.plot, () => this.draw());
    onTheme(() => this.draw());
    keepKeys(root);
    this.update();
  }

  addLegend() {
    const list = element("ul", { class: "legend", "aria-label": "What the figure shows" });
    for (const { label, role, kind } of this.spec.series) {
      const mark = element("span", { class: `${kind} role-${role}`, "aria-hidden": "true" });
      list.append(element("li", {}, mark, label));
    }
    this.root.append(list);
  }

  addNumbers() {
    const list = element("dl", { class: "numbers" });
    this.numbers = this.spec.numbers.map((label) => {
      const bar = element("span", { class: "bar" }), value = element("span");
      const track = element("span", { class: "track", "aria-hidden": "true" }, bar);
      list.append(element("dt", {}, label), element("dd", {}, value, track));
      return { bar, value };
    });
    this.root.append(list);
  }

  /** Where we are in the list of all positions: the last slider moves fastest. */
  get position() {
    return this.spec.sliders.reduce((p, { values }, k) => p * values.length + this.at[k], 0);
  }

  said() {
    return this.spec.sliders.map(({ name, values }, k) =>
      `${name} ${spoken(values[this.at[k]])}`).join(", ");
  }

  /** Go to a position, told from outside. */
  move(at) {
    this.at = Array.from(at);
    this.update();
  }

  update() {
    const { spec } = this, numbers = spec.table[this.position], where = this.said();
    this.inputs.forEach(({ input, value }, k) => {
      const text = spoken(spec.sliders[k].values[this.at[k]]);
      input.value = this.at[k];
      input.setAttribute("aria-valuetext", text);
      value.textContent = text;
    });
    const texts = numbers.map((n) => `${spoken(n, spec.digits)} ${spec.unit}`.trim());
    this.numbers.forEach(({ bar, value }, n) => {
      const length = Math.abs(numbers[n]) / spec.longest;
      value.textContent = texts[n];
      bar.style.width = `${100 * Math.min(1, length)}%`;
      bar.classList.toggle("cut", length > 1); // longer than its place
    });
    this.where.textContent = `At ${where}.`;
    this.plot.setAttribute("aria-label", `${spec.alt} Now ${where}.`);
    this.say(spec.numbers.map((label, n) => `${label} ${texts[n]}`).join(", "));
    this.root.dataset.at = this.at.join(" ");
    if (this.show) this.show(this.position);
    this.draw();
    this.tell("at", [...this.at]);
  }

  /** The figure at this position, as sharp as the screen. */
  draw() {
    const { clientWidth: w, clientHeight: h } = this.plot, { x: X, y: Y, series } = this.spec;
    if (!w) return; // folded away
    const context = sharpen(this.plot), style = getComputedStyle(this.root), color = named(style);
    context.font = `13px ${style.fontFamily}`;
    const heights = Y.label ? ticks(Y, h / 60) : []; // no name: heights mean nothing
    const widest = Math.max(0, ...heights.map(([, text]) => context.measureText(text).width));
    const box = { left: Y.label ? 30 + widest : 8, right: w - 18, top: 8, bottom: h - 42 };
    const x = (v) => box.left + (v - X.min) / (X.max - X.min) * (box.right - box.left);
    const y = (v) => box.bottom - (v - Y.min) / (Y.max - Y.min) * (box.bottom - box.top);

    context.fillStyle = style.color;
    context.lineWidth = 1;
    context.strokeStyle = color("grid");
    context.textAlign = "center";
    for (const [v, text] of ticks(X, w / 80)) {
      context.strokeRect(x(v), box.top, 0, box.bottom - box.top);
      context.fillText(text, x(v), box.bottom + 16);
    }
    context.fillText(X.label, (box.left + box.right) / 2, h - 8);
    context.textAlign = "right";
    for (const [v, text] of heights) {
      context.strokeRect(box.left, y(v), box.right - box.left, 0);
      context.fillText(text, box.left - 6, y(v) + 4);
    }
    context.save();
    context.translate(12, (box.top + box.bottom) / 2);
    context.rotate(-Math.PI / 2);
    context.textAlign = "center";
    context.fillText(Y.label, 0, 0);
    context.restore();

    context.save();
    context.beginPath();
    context.rect(box.left, box.top - 4, box.right - box.left, box.bottom - box.top + 8);
    context.clip();
    for (const one of series) {
      const at = (part, i) => this.table[part.start + this.position * part.stride + i];
      context.strokeStyle = context.fillStyle = color(one.role);
      context.setLineDash(one.role === "exact" ? [6, 4] : []);
      context.lineWidth = 2.2;
      context.beginPath();
      for (let i = 0; i < one.count; i++) {
        const px = box.left + at(one.x, i) * (box.right - box.left);
        const py = box.bottom - at(one.y, i) * (box.bottom - box.top);
        if (one.kind === "line") {
          context.lineTo(px, py);
        } else { // what lies beyond the figure is drawn at its edge
          const inside = Math.min(box.right - 2, Math.max(box.left + 2, px));
          context.moveTo(inside, py);
          context.arc(inside, py, one.count === 1 ? 7 : one.count > 50 ? 2.2 : 4, 0, 7);
        }
      }
      if (one.kind === "line") context.stroke();
      else context.fill();
    }
    context.restore();
  }
}

/** About `count` round numbers between the ends, and how to write them. */
function ticks({ min, max }, count) {
  const rough = (max - min) / Math.max(4, count), ten = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * ten).find((m) => m >= rough);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const found = [];
  for (let k = Math.ceil(min / step - 1e-9); k * step <= max + 1e-9 * step; k++) {
    found.push([k * step, spoken(k * step, digits)]);
  }
  return found;
}
