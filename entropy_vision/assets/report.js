"use strict";
for (const story of document.querySelectorAll(".story")) {
  const data = JSON.parse(story.querySelector("script").textContent);
  const slider = story.querySelector("input");
  const button = story.querySelector("button");
  const output = story.querySelector("output");
  const readout = story.querySelector(".readout");
  const bars = story.querySelectorAll(".spark rect");
  const play = "M2 1l11 6-11 6z", pause = "M2 1h4v12H2zM8 1h4v12H8z";
  let now = slider ? Number(slider.value) : 0, timer = 0;

  const draw = () => {
    for (const image of story.querySelectorAll(".frame")) image.src = data.frames[now];
    story.querySelectorAll(".heat .grid").forEach((image, i) => { image.src = data.kept[i].heat[now]; });
    story.querySelectorAll(".kept .grid").forEach((image, i) => { image.src = data.kept[i].mask[now]; });
    story.querySelectorAll(".predicted .grid").forEach((image) => { image.src = data.predicted[now]; });
    if (!slider) return;
    slider.value = now;
    const counts = data.kept.map((kept) => kept.count[now]).join(" / ");
    output.textContent = data.seconds[now].toFixed(2) + " s · " + counts + " kept";
    bars.forEach((bar, i) => bar.classList.toggle("now", i === data.numbers[now]));
  };
  const stop = () => { clearInterval(timer); timer = 0; button.querySelector("path").setAttribute("d", play); };

  if (slider) {
    slider.addEventListener("input", () => { stop(); now = Number(slider.value); draw(); });
    button.addEventListener("click", () => {
      if (timer) { stop(); return; }
      button.querySelector("path").setAttribute("d", pause);
      timer = setInterval(() => { now = (now + 1) % data.frames.length; draw(); }, 260);
    });
    const spark = story.querySelector(".spark");
    spark.addEventListener("click", (event) => {
      const box = spark.getBoundingClientRect();
      const wanted = (event.clientX - box.left) / box.width * bars.length;
      const far = data.numbers.map((n) => Math.abs(n + 0.5 - wanted));
      stop(); now = far.indexOf(Math.min(...far)); draw();
    });
  }
  for (const stage of story.querySelectorAll(".stage")) {
    stage.addEventListener("pointermove", (event) => {
      const box = stage.getBoundingClientRect();
      const which = data.kept[Number(stage.dataset.kept || 0)];
      const row = Math.min(which.rows - 1, Math.floor((event.clientY - box.top) / box.height * data.height / which.patch));
      const column = Math.min(which.columns - 1, Math.floor((event.clientX - box.left) / box.width * data.width / which.patch));
      const at = row * which.columns + column;
      readout.textContent = which.selector + ": row " + row + ", column " + column + ": " + which.bits[now][at] + " " +
        which.score + ", " + (which.bitmap[now][at] === "1" ? "kept" : "dropped") +
        (data.predictors && which === data.kept[0] ?
          "; closest predictor: " + data.predictorNames[Number(data.predictors[now][at])] : "");
    });
  }
  draw();
}
