/** A sheet to draw on: what is drawn is encoded, placed, reconstructed and priced. */
class Paper {
  constructor(explorer) {
    this.explorer = explorer;
    this.scale = 10;
    const [, height, width] = explorer.spec.shape;
    this.canvas = element("canvas", { class: "paper", role: "img", width: width * this.scale,
      height: height * this.scale, style: `aspect-ratio: ${width} / ${height}` });
    this.context = this.canvas.getContext("2d", { willReadFrequently: true });
    this.report = element("p");
    this.controls = element("div", { class: "control" }, button("Clear", () => {
      this.clear();
      explorer.tell("drawing", new DataView(new ArrayBuffer(0)));
    }));
    if (explorer.spec.examples) {
      this.examples = fromBase64(explorer.spec.examples);
      this.next = 0;
      this.controls.append(button("Next example", () => this.example()));
    }
    this.clear();
    let last = null;
    const at = (event) => {
      const box = this.canvas.getBoundingClientRect();
      return [(event.clientX - box.left) / box.width * this.canvas.width,
        (event.clientY - box.top) / box.height * this.canvas.height];
    };
    const stroke = (event) => {
      const here = at(event);
      if (!this.drawn) this.clear(); // an example is not drawn upon
      this.drawn = true;
      this.line(last || here, here);
      last = here;
      this.read("Your drawing");
    };
    this.canvas.addEventListener("pointerdown", (event) => {
      if (secondary(event)) return;
      this.canvas.setPointerCapture(event.pointerId);
      last = null;
      stroke(event);
    });
    this.canvas.addEventListener("pointermove", (event) => {
      if (this.canvas.hasPointerCapture(event.pointerId)) stroke(event);
    });
  }

  clear() {
    this.drawn = false;
    this.context.fillStyle = "#fff";
    this.context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    this.canvas.setAttribute("aria-label", "Paper: draw here with mouse, pen or finger");
    this.report.textContent = "Draw a digit: it is encoded, placed on the plane, and reconstructed.";
    this.explorer.ellipse = this.explorer.price = null;
    this.explorer.drawDots();
  }

  line([x0, y0], [x1, y1]) {
    const context = this.context;
    context.strokeStyle = "#000";
    context.lineWidth = 2.4 * this.scale;
    context.lineCap = context.lineJoin = "round";
    context.beginPath();
    context.moveTo(x0, y0);
    context.lineTo(x1 + 0.01, y1);
    context.stroke();
  }

  example() {
    const [, height, width] = this.explorer.spec.shape, size = height * width;
    const count = this.examples.length / size;
    const ink = this.examples.slice(this.next * size, (this.next + 1) * size);
    const { classes, y } = this.explorer.spec.points;
    const name = `Example ${this.next + 1} of ${count}, of class ${classes[y[this.next]]}`;
    this.next = (this.next + 1) % count;
    this.clear();
    this.canvas.setAttribute("aria-label", name);
    const small = element("canvas", { width, height });
    paint(small, Float32Array.from(ink, (v) => v / 255), [1, height, width]);
    this.context.imageSmoothingEnabled = false;
    this.context.drawImage(small, 0, 0, this.canvas.width, this.canvas.height);
    this.read(name);
  }

  /** The ink of each pixel, [H * W] in [0, 1]: means over squares of the canvas. */
  ink() {
    const [, height, width] = this.explorer.spec.shape, s = this.scale;
    const { data } = this.drawn ? this.centred() : this.pixels(this.context);
    const x = new Float32Array(height * width);
    for (let i = 0; i < height * s; i++) {
      for (let j = 0; j < width * s; j++) {
        x[Math.floor(i / s) * width + Math.floor(j / s)] +=
          (1 - data[4 * (i * width * s + j)] / 255) / (s * s);
      }
    }
    return x;
  }

  pixels(context) {
    return context.getImageData(0, 0, this.canvas.width, this.canvas.height);
  }

  /** The strokes as MNIST has them: the longer side 5/7 of the sheet, the centre of mass amid. */
  centred() {
    const { width, height } = this.canvas, { data } = this.pixels(this.context);
    let left = width, right = 0, top = height, bottom = 0, mass = 0, x = 0, y = 0;
    for (let i = 0; i < height; i++) {
      for (let j = 0; j < width; j++) {
        const ink = 255 - data[4 * (i * width + j)];
        if (!ink) continue;
        left = Math.min(left, j);
        right = Math.max(right, j);
        top = Math.min(top, i);
        bottom = Math.max(bottom, i);
        mass += ink;
        x += ink * j;
        y += ink * i;
      }
    }
    const zoom = 5 / 7 * Math.min(width / Math.max(right - left, width / 4),
      height / Math.max(bottom - top, height / 4));
    const sheet = element("canvas", { width, height });
    const context = sheet.getContext("2d", { willReadFrequently: true });
    context.fillStyle = "#fff";
    context.fillRect(0, 0, width, height);
    context.setTransform(zoom, 0, 0, zoom, width / 2 - zoom * x / mass, height / 2 - zoom * y / mass);
    context.drawImage(this.canvas, 0, 0);
    return this.pixels(context);
  }

  read(name) {
    const { explorer } = this, { spec, weights } = explorer, D = spec.latentDim;
    const x = this.ink();
    const q = run(spec.encoder, weights, x);
    const mean = Array.from(q.slice(0, D)), logVar = Array.from(q.slice(D));
    const rate = mean.reduce((sum, m, d) =>
      sum + 0.5 * (m * m + Math.exp(logVar[d]) - 1 - logVar[d]), 0);
    const logits = run(spec.decoder, weights, Float32Array.from(mean));
    // Ink is a chance: the expected cost of the bits is linear in it.
    const distortion = logits.reduce((sum, l, i) => sum + softplus(l) - x[i] * l, 0);
    const sigma = logVar.map((v) => Math.exp(0.5 * v)), [i, j] = spec.axes;
    explorer.ellipse = { mean, sigma };
    explorer.price = `${name}: rate ${rate.toFixed(1)} nats, distortion ${distortion.toFixed(1)} ` +
      `nats at the mean; sd (${sigma[i].toFixed(2)}, ${sigma[j].toFixed(2)}).`;
    this.report.textContent = explorer.price;
    explorer.drawDots();
    explorer.move(mean);
    explorer.root.dataset.rate = rate.toFixed(4);
    explorer.root.dataset.distortion = distortion.toFixed(4);
    explorer.tell("drawing", new DataView(Uint8Array.from(x, (v) => Math.round(255 * v)).buffer));
  }
}
