"use strict";
// The slider puts the weights of another epoch into the cells of the heat maps.
(() => {
  const data = document.getElementById("frames");
  const slider = document.getElementById("epoch");
  if (!data || !slider) return;
  const { frames, limit } = JSON.parse(data.textContent);
  const moment = document.getElementById("moment");
  const strongest = 0.72;
  const maps = [];
  for (let k = 0; document.getElementById(`map-${k}`); k++) {
    const svg = document.getElementById(`map-${k}`);
    maps.push({ cells: svg.querySelectorAll("rect.weight"), counts: svg.querySelectorAll("text.count") });
  }
  const text = (value) => (Math.abs(value) < 0.005 ? 0 : value).toFixed(2);
  const show = () => {
    const frame = frames[Number(slider.value)];
    moment.textContent = `epoch ${frame.epoch}, step ${frame.step}`;
    slider.setAttribute("aria-valuetext", moment.textContent);
    maps.forEach((map, k) => {
      frame.values[k].forEach((value, i) => {
        const cell = map.cells[i];
        cell.classList.toggle("negative", value < 0);
        cell.setAttribute("fill-opacity", strongest * Math.min(Math.abs(value) / limit, 1));
        const title = cell.querySelector("title");
        if (title) title.textContent = `${title.textContent.replace(/: [^:]*$/, "")}: ${value}`;
        if (map.counts.length) map.counts[i].textContent = text(value);
      });
    });
  };
  slider.addEventListener("input", show);
})();
// A printed page shows what is folded; afterwards it is as before.
(() => {
  let folded = [];
  window.addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    folded.forEach((one) => { one.open = true; });
  });
  window.addEventListener("afterprint", () => {
    folded.forEach((one) => { one.open = false; });
  });
})();
