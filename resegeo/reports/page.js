"use strict";
for (const map of document.querySelectorAll(".map")) {
  const stack = map.querySelector(".stack"), bar = map.querySelector(".scale");
  let scale = 1, x = 0, y = 0, held = null;
  const side = Number(map.dataset.side);  // metres a pixel of the picture, 0 where nobody knows
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  function show() {
    x = clamp(x, map.clientWidth * (1 - scale), 0);
    y = clamp(y, map.clientHeight * (1 - scale), 0);
    stack.style.transform = `translate(${x}px, ${y}px) scale(${scale})`;
    if (!side) return;
    const metres = side * Number(map.dataset.width) / (map.clientWidth * scale);
    const most = metres * 160, power = 10 ** Math.floor(Math.log10(most));
    const round = [5, 2, 1].find(step => step * power <= most) * power;
    bar.querySelector("span").textContent = round >= 1000 ? `${round / 1000} km` : `${round} m`;
    bar.querySelector("i").style.width = `${round / metres}px`;
  }
  function zoom(factor, left, top) {
    const next = clamp(scale * factor, 1, 24);
    x = left - (left - x) * next / scale;
    y = top - (top - y) * next / scale;
    scale = next;
    show();
  }
  map.addEventListener("wheel", event => {
    event.preventDefault();
    const box = map.getBoundingClientRect();
    zoom(event.deltaY < 0 ? 1.25 : 0.8, event.clientX - box.left, event.clientY - box.top);
  }, {passive: false});
  map.addEventListener("pointerdown", event => {
    if (event.target.closest("button")) return;
    held = [event.clientX - x, event.clientY - y];
    map.setPointerCapture(event.pointerId);
    map.classList.add("held");
  });
  map.addEventListener("pointermove", event => {
    if (held) { x = event.clientX - held[0]; y = event.clientY - held[1]; show(); }
  });
  for (const end of ["pointerup", "pointercancel"])
    map.addEventListener(end, () => { held = null; map.classList.remove("held"); });
  for (const button of map.querySelectorAll("button"))
    button.addEventListener("click", () => {
      const factor = Number(button.dataset.zoom);
      if (factor) zoom(factor, map.clientWidth / 2, map.clientHeight / 2); else { scale = 1; show(); }
    });
  for (const slider of document.querySelectorAll(".controls input"))
    slider.addEventListener("input", () => {
      stack.children[Number(slider.dataset.layer)].style.opacity = slider.value / 100;
    });
  window.addEventListener("resize", show);
  show();
}
