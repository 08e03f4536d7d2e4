// Where widgets live: in Jupyter and Colab (through anywidget, `export default`) and in pages
// without a kernel (`start`).

// The class of a widget, and the trait that says where its reader has moved it.
const kinds = { explorer: [Explorer, "z"], sliders: [Sliders, "at"] };

/** Live Jupyter and Colab: anywidget calls this with its model. */
function render({ model, el }) {
  const { buffer, byteOffset, byteLength } = model.get("weights");
  const weights = unpack(new Uint8Array(buffer, byteOffset, byteLength));
  const spec = JSON.parse(model.get("spec")), [Widget, place] = kinds[spec.kind];
  let own = false; // changes that we made ourselves come back as events
  const widget = new Widget(el, spec, weights, model.get(place), (name, value) => {
    own = true;
    model.set(name, value);
    model.save_changes();
    own = false;
  });
  model.on(`change:${place}`, () => {
    if (!own) widget.move(model.get(place));
  });
}

/** A page: the state and the weights lie beside the element. Widgets of a page share weights. */
export function start(root) {
  const state = JSON.parse(document.querySelector(`[data-state-of="${root.id}"]`).textContent);
  const text = document.querySelector(`[data-weights="${state.weights}"]`).textContent;
  const spec = JSON.parse(state.spec), [Widget] = kinds[spec.kind];
  root.explorer = new Widget(root, spec, unpack(fromBase64(text)), state.place, () => {});
  root.explorer.run = run; // for whoever wants to check the networks
}

export default { render };
