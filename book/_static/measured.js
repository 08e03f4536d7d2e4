// What scrolls sideways must be reachable by keyboard: give it a tab stop, and only while it
// scrolls. After typesetting and whenever the width changes.
addEventListener("load", async () => {
  const wide = 'mjx-container[display="true"], div.math, article pre, .cell_output .output, ' +
    ".pst-scrollable-table-container";
  const mark = () => document.querySelectorAll(wide).forEach((element) => {
    const scrolls = element.scrollWidth > element.clientWidth + 1 &&
      /auto|scroll/.test(getComputedStyle(element).overflowX);
    if (scrolls) element.tabIndex = 0;
    else element.removeAttribute("tabindex");
  });
  await window.MathJax?.startup?.promise;
  mark();
  addEventListener("resize", mark);
  // Content of a folded part has no width until it is opened.
  document.addEventListener("toggle", mark, true);
});
