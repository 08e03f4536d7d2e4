/** The pad, the image and the sliders: all that shows one latent point. */
class Explorer {
  constructor(root, spec, weights, z, tell) {
    Object.assign(this, { root, spec, weights, tell });
    this.id = newId();
    this.z = Array.from(z);
    this.waiting = false;
    this.ellipse = null;
    this.pins = {};
    this.say = begin(root, "Latent explorer");
    this.addPad();
    if (spec.points) this.addLegend();
    if (spec.contours) this.addContours();
    this.addSliders();
    if (spec.interpolate) this.addPins();
    if (spec.encoder) this.addPaper();
    if (spec.replay) this.addReplay();
    keepKeys(root);
    this.update();
  }

  addPad() {
    const [, height, width] = this.spec.shape, [i, j] = this.spec.axes;
    this.dots = element("canvas", { "aria-hidden": "true" });
    this.knob = element("span", { class: "knob", "aria-hidden": "true" });
    this.value = element("p", { id: `${this.id}-value` });
    const hint = element("p", { id: `${this.id}-hint` },
      "Drag in the square, or use the arrow keys (with Shift, larger steps; Home, the middle).");
    this.pad = element("div", { class: "pad", tabindex: 0, role: "application",
      "aria-roledescription": "two-dimensional slider",
      "aria-label": `Latent plane, z${i + 1} to the right and z${j + 1} up`,
      "aria-describedby": `${this.id}-value ${this.id}-hint` }, this.dots, this.knob);
    this.image = element("canvas", { class: "image", width, height, role: "img",
      style: `aspect-ratio: ${width} / ${height}` });
    this.panels = element("div", { class: "panels" });
    this.addPanel("Latent plane", this.pad);
    this.addPanel("Decoded", this.image);
    this.root.append(this.panels, this.value, hint);

    const inside = (v) => Math.min(this.spec.span, Math.max(-this.spec.span, v));
    const follow = (event) => {
      const box = this.pad.getBoundingClientRect(), { span } = this.spec;
      this.z[i] = inside(((event.clientX - box.left) / box.width * 2 - 1) * span);
      this.z[j] = inside((1 - (event.clientY - box.top) / box.height * 2) * span);
      this.update();
    };
    this.pad.addEventListener("pointerdown", (event) => {
      if (secondary(event)) return;
      this.pad.setPointerCapture(event.pointerId);
      this.pad.focus({ preventScroll: true });
      follow(event);
    });
    this.pad.addEventListener("pointermove", (event) => {
      if (this.pad.hasPointerCapture(event.pointerId)) follow(event);
    });
    this.pad.addEventListener("keydown", (event) => {
      if (event.altKey || event.ctrlKey || event.metaKey) return; // the browser's own
      const step = event.shiftKey ? 0.5 : 0.1;
      const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, step],
        ArrowDown: [0, -step] };
      if (event.key === "Home") this.z[i] = this.z[j] = 0;
      else if (event.key in moves) {
        this.z[i] = inside(this.z[i] + moves[event.key][0]);
        this.z[j] = inside(this.z[j] + moves[event.key][1]);
      } else return;
      event.preventDefault();
      event.stopPropagation();
      this.update();
    });
    onSize(this.dots, () => this.drawDots());
    onTheme(() => this.drawDots());
  }

  addPanel(caption, ...content) {
    const name = element("span", { "aria-hidden": "true" }, caption);
    this.panels.append(element("div", { class: "panel" }, name, ...content));
  }

  /** A slider for every latent, the pad's own two included, up to ten. */
  addSliders() {
    const { axes, latentDim, span } = this.spec;
    const others = [...Array(latentDim).keys()].filter((d) => !axes.includes(d));
    this.sliders = [...axes, ...others.slice(0, 8)].map((d) => {
      const range = { min: -span, max: span, step: 0.05, value: this.z[d] };
      const [row, input] = slider(`${this.id}-z${d}`, `z${d + 1}`, range, (value) => {
        this.z[d] = value;
        this.update();
      });
      this.root.append(row);
      return [d, input];
    });
  }

  addLegend() {
    const list = element("ul", { class: "legend", "aria-label": "Classes of the dots" });
    this.spec.points.classes.forEach((name, c) => {
      const dot = element("span", { style: `background: ${COLORS[c]}`, "aria-hidden": "true" });
      list.append(element("li", {}, dot, String(name)));
    });
    this.root.append(list);
  }

  /** A menu of densities: the contours of the chosen one lie on the pad. */
  addContours() {
    const menu = element("select", { id: `${this.id}-contours` });
    menu.append(...this.spec.contours.map(({ name }) => element("option", {}, name)));
    menu.addEventListener("change", () => {
      this.density = this.spec.contours[menu.selectedIndex];
      this.drawDots();
      this.update();
    });
    [this.density] = this.spec.contours;
    const label = element("label", { for: menu.id }, "Contours of");
    this.root.append(element("div", { class: "control" }, label, menu));
  }

  /** A contour's lines on a pad of this size. */
  outline(lines, size) {
    const path = new Path2D();
    for (const line of lines) {
      line.forEach(([a, b], n) => {
        const [x, top] = this.share(a, b).map((share) => share * size);
        if (n) path.lineTo(x, top);
        else path.moveTo(x, top);
      });
    }
    return path;
  }

  /** Within which contour the knob is, in words. */
  region() {
    if (!this.density) return "";
    const { name, regions } = this.density, [left, top] = this.place(this.z);
    const sheet = element("canvas").getContext("2d"); // the pad's own has a scale
    const inside = regions.find(({ lines }) =>
      sheet.isPointInPath(this.outline(lines, 1), left, top, "evenodd"));
    return inside ? `; within the middle ${inside.percent} % of ${name}` : `; beyond all contours of ${name}`;
  }

  addPins() {
    const range = { min: 0, max: 1, step: 0.01, value: 0 };
    const [row, input] = slider(`${this.id}-way`, "A to B", range, (t) => {
      const { A, B } = this.pins;
      if (A && B) this.move(A.map((a, d) => a + t * (B[d] - a)));
    });
    input.disabled = true;
    const pin = (name) => button(`Pin ${name} here`, () => {
      this.pins[name] = [...this.z];
      input.disabled = !(this.pins.A && this.pins.B);
      this.drawDots();
    });
    this.root.append(element("div", { class: "control" }, pin("A"), pin("B")), row);
  }

  addReplay() {
    const { count } = this.spec.replay;
    const canvas = element("canvas", { class: "replay", role: "img" });
    const show = film(canvas, this.spec.replay,
      (t) => `The latent grid, picture ${t + 1} of ${count}`);
    const range = { min: 0, max: count - 1, step: 1, value: count - 1 };
    const [row] = slider(`${this.id}-replay`, "Replay", range, show);
    show(count - 1);
    this.root.append(element("div", { class: "control" }, canvas), row);
  }

  addPaper() {
    this.paper = new Paper(this);
    this.addPanel("Your drawing", this.paper.canvas, this.paper.controls, this.paper.report);
  }

  /** Where a point of the pad's two latents lies, in shares of its side, from left and top. */
  share(right, up) {
    const { span } = this.spec;
    return [(right / span + 1) / 2, (1 - up / span) / 2];
  }

  /** The same for a whole z. */
  place(z) {
    const [i, j] = this.spec.axes;
    return this.share(z[i], z[j]);
  }

  /** Points, the posterior's ellipse and the pins, on the canvas behind the knob. */
  drawDots() {
    const { spec, ellipse } = this, size = this.dots.clientWidth, [i, j] = spec.axes;
    if (!size) return; // folded away
    const context = sharpen(this.dots), style = getComputedStyle(this.root), color = named(style);
    context.strokeStyle = color("line");
    context.strokeRect(size / 2, 0, 0, size);
    context.strokeRect(0, size / 2, size, 0);
    const { z = [], y = [], classes = [] } = spec.points || {};
    const dots = z.map(([a, b]) => this.share(a, b).map((share) => share * size));
    dots.forEach(([x, top], n) => {
      context.fillStyle = COLORS[y[n]];
      context.beginPath();
      context.arc(x, top, size > 180 ? 2.2 : 1.6, 0, 7);
      context.fill();
    });
    const { regions = [] } = this.density || {};
    context.strokeStyle = style.color;
    regions.forEach(({ lines }, n) => {
      context.lineWidth = 2 - n / 2;
      context.stroke(this.outline(lines, size));
    });
    // Colour alone tells some readers nothing: each class has its name amid its dots.
    const middle = (values) => values.sort((a, b) => a - b)[values.length >> 1];
    context.font = `bold ${size > 180 ? 15 : 12}px ${style.fontFamily}`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.lineWidth = 4;
    context.lineJoin = "round";
    const write = (text, x, top) => {
      context.strokeStyle = color("ground");
      context.strokeText(text, x, top);
      context.fillStyle = style.color;
      context.fillText(text, x, top);
    };
    classes.forEach((name, c) => {
      const own = dots.filter((_, n) => y[n] === c);
      write(String(name), middle(own.map((d) => d[0])), middle(own.map((d) => d[1])));
    });
    this.knob.classList.toggle("open", Boolean(ellipse));
    if (ellipse) {
      const [x, top] = this.place(ellipse.mean), scale = size / spec.span; // 2 sigma
      context.strokeStyle = style.color;
      context.lineWidth = 2;
      context.beginPath();
      context.ellipse(x * size, top * size, ellipse.sigma[i] * scale, ellipse.sigma[j] * scale, 0, 0, 7);
      context.stroke();
    }
    for (const [name, pin] of Object.entries(this.pins)) {
      const [x, top] = this.place(pin);
      write(name, x * size, top * size);
    }
  }

  /** The class of the dot that lies nearest, for those who do not see the image. */
  nearest() {
    const { points, axes: [i, j] } = this.spec;
    if (!points) return "";
    const far = points.z.map(([a, b]) => (a - this.z[i]) ** 2 + (b - this.z[j]) ** 2);
    return `; the nearest dot is of class ${points.classes[points.y[far.indexOf(Math.min(...far))]]}`;
  }

  /** Go to z, told from outside. */
  move(z) {
    this.z = Array.from(z);
    this.update();
  }

  update() {
    const [i, j] = this.spec.axes, [left, top] = this.place(this.z);
    const shown = (share) => `${100 * Math.min(1, Math.max(0, share))}%`; // a code may lie beyond
    this.knob.style.left = shown(left);
    this.knob.style.top = shown(top);
    for (const [d, input] of this.sliders) {
      input.value = this.z[d];
      input.setAttribute("aria-valuetext", spoken(this.z[d], 2));
    }
    this.value.textContent =
      `z${i + 1} = ${spoken(this.z[i], 2)}, z${j + 1} = ${spoken(this.z[j], 2)}${this.region()}`;
    if (this.waiting) return; // one decoding a frame, at most
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      const started = performance.now();
      paint(this.image, this.decode(this.z), this.spec.shape);
      this.root.dataset.milliseconds = (performance.now() - started).toFixed(2);
      const here = `${this.value.textContent}${this.nearest()}`;
      this.image.setAttribute("aria-label", `Image decoded at ${here}`);
      this.say(`${here}. ${this.price || ""}`);
      this.root.dataset.z = this.z.map((v) => v.toFixed(4)).join(" ");
      this.tell("z", [...this.z]);
    });
  }

  decode(z) {
    const output = run(this.spec.decoder, this.weights, Float32Array.from(z));
    return this.spec.head === "sigmoid" ? output.map(sigmoid) : output;
  }
}
