/* The script of a report: curves, the table of members, and what is new while a run goes on.

   What is shown is in the page without it: tables, figures, and curves as sketches. Here are
   plain functions over the plain data of the element #report, and uPlot, which draws. */

(function () {
  "use strict";

  const PAGE = 50; // rows of members in the page at a time
  const STYLES = 6; // colours of curves, as in report.css
  const EPOCHS = [1, 2, 5].flatMap((n) => [...Array(9).keys()].map((i) => n * 10 ** i)).sort((a, b) => a - b); // between ticks
  const HEIGHT = 270; // of a plot, as in report.css
  const DASHES = [[], [6, 3], [2, 3], [9, 3, 2, 3]];
  const WAIT = 1000; // milliseconds between questions for what is new

  const report = JSON.parse(document.getElementById("report").textContent);
  const byId = (name) => document.getElementById(name);

  document.documentElement.classList.add("scripted");

  // Text of numbers, as Python writes it

  function significant(value, digits) {
    if (!Number.isFinite(value)) return String(value);
    const exponent = value === 0 ? 0 : Math.floor(Math.log10(Math.abs(Number(value.toPrecision(digits)))));
    if (exponent < -4 || exponent >= digits) {
      const [mantissa, power] = value.toExponential(digits - 1).split("e");
      const short = mantissa.includes(".") ? mantissa.replace(/\.?0+$/, "") : mantissa;
      return `${short}e${power[0]}${power.slice(1).padStart(2, "0")}`;
    }
    return String(Number(value.toPrecision(digits)));
  }

  function cellText(value, percent) {
    if (value === null) return "-";
    if (percent) return `${(100 * value).toFixed(2)} %`;
    if (typeof value === "number" && !Number.isInteger(value)) return significant(value, 4);
    return String(value);
  }

  function curveText(value, unit) {
    return unit ? `${value.toFixed(2)}${unit}` : significant(value, 4);
  }

  // Curves

  const plots = [];
  const view = { full: [0, 1], now: null, logarithmic: false };

  function style(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  function colorOf(i) {
    return style(`--color${i % STYLES}`);
  }

  /* All curves over one axis: uPlot wants that, and leaves a gap where null is. */
  function columnsOf(spec) {
    const tables = spec.series.map((each) => {
      const columns = [each.x, each.y];
      if (each.low) columns.push(each.low, each.high);
      return columns;
    });
    return tables.length ? uPlot.join(tables) : [[]];
  }

  function seriesOf(spec, hidden) {
    const series = [{ label: "epoch" }];
    const bands = [];
    spec.series.forEach((each, i) => {
      const color = colorOf(i);
      const points = each.x.length <= 60 && each.column !== undefined;
      each.at = series.length;
      series.push({
        label: each.name,
        stroke: color,
        width: 2,
        dash: DASHES[Math.floor(i / STYLES) % DASHES.length],
        spanGaps: false,
        show: !hidden.has(i),
        points: { show: points, size: 5, fill: color, stroke: color },
      });
      if (each.low) {
        const edge = { stroke: "transparent", width: 0, points: { show: false }, show: !hidden.has(i) };
        series.push({ label: "least", ...edge }, { label: "greatest", ...edge });
        bands.push({ series: [each.at + 2, each.at + 1], fill: `${color}38` });
      }
    });
    return { series, bands };
  }

  /* The nearest place of a series that has a value there: those of other runs may lie between. */
  function nearest(u, at, idx) {
    const values = u.data[at];
    for (let away = 0; away < values.length; away++) {
      if (values[idx - away] != null) return idx - away;
      if (values[idx + away] != null) return idx + away;
    }
    return null;
  }

  function isLogarithmic(spec) {
    const lossy = spec.name === "steps" || spec.name.endsWith("loss");
    const positive = (y) => y === null || y > 0;
    return view.logarithmic && lossy && spec.series.every((each) => each.y.every(positive));
  }

  function optionsOf(plot) {
    const { spec } = plot;
    const soft = style("--soft");
    const grid = { stroke: style("--line"), width: 1 };
    const ticks = { stroke: style("--line"), width: 1, size: 4 };
    const font = "12px system-ui, -apple-system, 'Segoe UI', Roboto, Arial, sans-serif";
    const logarithmic = isLogarithmic(spec);
    const values = (u, splits) =>
      splits.map((v) => (v === null ? "" : `${significant(v, 6)}${spec.unit}`));
    const whole = spec.name === "steps" ? {} : { incrs: EPOCHS };
    return {
      width: plot.box.clientWidth,
      height: HEIGHT,
      legend: { show: false },
      scales: {
        x: { time: false, range: () => view.now || view.full },
        y: { distr: logarithmic ? 3 : 1 },
      },
      axes: [
        { stroke: soft, grid, ticks, font, ...whole, label: "epoch", labelSize: 18, labelFont: font, size: 30 },
        { stroke: soft, grid, ticks, font, size: 62, values },
      ],
      cursor: {
        drag: { x: true, y: false, setScale: false, dist: 4 },
        sync: {
          key: "curves",
          scales: ["x", null],
          filters: { pub: (type) => type === "mousemove" || type === "mouseleave" },
        },
        dataIdx: nearest,
        points: { size: 8 },
        bind: { dblclick: () => () => show(null) },
      },
      hooks: {
        setCursor: [(u) => sayValues(plot, u)],
        setSelect: [(u) => select(u)],
      },
      ...seriesOf(spec, plot.hidden),
    };
  }

  function select(u) {
    if (u.select.width < 4) return;
    const ends = [u.select.left, u.select.left + u.select.width].map((at) => u.posToVal(at, "x"));
    u.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
    show(ends);
  }

  /* Show a part of the epochs in all plots, or all of them: null. */
  function show(ends) {
    const [low, high] = view.full;
    if (ends !== null) {
      const least = (high - low) / 1000;
      let [from, to] = [Math.max(low, ends[0]), Math.min(high, ends[1])];
      if (to - from < least) return;
      view.now = from <= low && to >= high ? null : [from, to];
    } else {
      view.now = null;
    }
    byId("reset").disabled = view.now === null;
    const [min, max] = view.now || view.full;
    plots.forEach((plot) => plot.u && plot.u.setScale("x", { min, max }));
  }

  /* The values under the cursor, or the last ones, in the legend. */
  function sayValues(plot, u) {
    const idxs = u.cursor.idxs;
    plot.spec.series.forEach((each, i) => {
      const at = u.cursor.left >= 0 && idxs ? idxs[each.at] : null;
      const value = at != null ? u.data[each.at][at] : null;
      plot.values[i].textContent = value != null ? curveText(value, plot.spec.unit) : each.last;
    });
  }

  function place(u) {
    return u.cursor.left >= 0 ? u.posToVal(u.cursor.left, "x") : null;
  }

  /* Move the cursor to the next place of the first curve, in a direction, or to an end. */
  function step(plot, key) {
    const { u } = plot;
    const [min, max] = view.now || view.full;
    const within = (x) => x >= min && x <= max;
    const places = plot.spec.series.flatMap((each, i) => (plot.hidden.has(i) ? [] : each.x));
    const xs = [...new Set(places)].filter(within).sort((a, b) => a - b);
    if (!xs.length) return;
    const now = place(u);
    const near = now === null ? -1 : closest(xs, now);
    let next = { ArrowLeft: near < 0 ? xs.length - 1 : near - 1, ArrowRight: near + 1, Home: 0 }[key];
    if (key === "End") next = xs.length - 1;
    next = Math.max(0, Math.min(xs.length - 1, next));
    point(xs[next]);
    speak(plot, xs[next]);
  }

  /* The cursors of all plots at an epoch, or nowhere: null. */
  function point(x) {
    plots.forEach(({ u }) => {
      if (!u) return;
      const top = u.over.clientHeight / 2;
      u.setCursor(x === null ? { left: -10, top: -10 } : { left: u.valToPos(x, "x"), top });
    });
  }

  function closest(xs, x) {
    let best = 0;
    xs.forEach((each, i) => {
      if (Math.abs(each - x) < Math.abs(xs[best] - x)) best = i;
    });
    return best;
  }

  function speak(plot, x) {
    const said = plot.spec.series.map((each, i) => `${each.name} ${plot.values[i].textContent}`);
    plot.said.textContent = `epoch ${significant(x, 4)}: ${said.join(", ")}`;
  }

  function zoom(plot, factor) {
    const [min, max] = view.now || view.full;
    const at = place(plot.u);
    const middle = at === null ? (min + max) / 2 : at;
    show([middle - factor * (middle - min), middle + factor * (max - middle)]);
  }

  function onKey(plot, event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !plot.u) return;
    const actions = {
      "+": () => zoom(plot, 0.5),
      "=": () => zoom(plot, 0.5),
      "-": () => zoom(plot, 2),
      0: () => show(null),
      Escape: () => show(null),
    };
    for (const key of ["ArrowLeft", "ArrowRight", "Home", "End"]) actions[key] = () => step(plot, key);
    if (actions[event.key]) {
      event.preventDefault();
      actions[event.key]();
    }
  }

  function toggle(plot, i) {
    if (plot.hidden.has(i)) plot.hidden.delete(i);
    else plot.hidden.add(i);
    const each = plot.spec.series[i];
    plot.buttons[i].setAttribute("aria-pressed", String(!plot.hidden.has(i)));
    if (!plot.u) return;
    const several = each.low ? [each.at, each.at + 1, each.at + 2] : [each.at];
    several.forEach((at) => plot.u.setSeries(at, { show: !plot.hidden.has(i) }));
  }

  function isMeasured(spec) {
    return spec.series.some((each) => each.y.some((y) => y !== null));
  }

  function draw(plot) {
    if (!isMeasured(plot.spec)) return;
    if (plot.u) plot.u.destroy();
    plot.box.textContent = "";
    plot.u = new uPlot(optionsOf(plot), columnsOf(plot.spec), plot.box);
    plot.u.root.setAttribute("aria-hidden", "true");
  }

  function drawAll() {
    let last = 1;
    plots.forEach(({ spec }) =>
      spec.series.forEach((each) => {
        if (each.x.length) last = Math.max(last, each.x[each.x.length - 1]);
      })
    );
    view.full = [0, last];
    plots.forEach(draw);
  }

  function prepare(spec, i) {
    const legend = document.querySelector(`.legend[data-plot="${i}"]`);
    const plot = {
      spec,
      box: document.querySelector(`.plot[data-plot="${i}"]`),
      said: document.querySelector(`[data-said="${i}"]`),
      buttons: [...legend.querySelectorAll("button")],
      values: [...legend.querySelectorAll(".value")],
      hidden: new Set(),
      u: null,
    };
    plot.buttons.forEach((button, at) => button.addEventListener("click", () => toggle(plot, at)));
    plot.box.addEventListener("keydown", (event) => onKey(plot, event));
    plot.box.addEventListener("blur", () => point(null));
    new ResizeObserver(() => resize(plot)).observe(plot.box);
    plots.push(plot);
  }

  function resize(plot) {
    const width = plot.box.clientWidth;
    if (plot.u && width && plot.u.width !== width) plot.u.setSize({ width, height: HEIGHT });
  }

  function drawFor(paper) {
    document.documentElement.classList.toggle("paper", paper);
    plots.forEach(draw);
  }

  function startCurves() {
    report.plots.forEach(prepare);
    drawAll();
    byId("reset").addEventListener("click", () => show(null));
    byId("logarithmic").addEventListener("change", (event) => {
      view.logarithmic = event.target.checked;
      drawAll();
    });
    // Canvases have their colours and their size from when they were drawn.
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plots.forEach(draw));
    matchMedia("print").addEventListener("change", (event) => drawFor(event.matches));
    addEventListener("beforeprint", () => drawFor(true));
    addEventListener("afterprint", () => drawFor(false));
  }

  // Members of a sweep

  function startMembers() {
    const { columns, percent, rows } = report.members;
    const collator = new Intl.Collator("en", { numeric: true });
    const texts = rows.map((row) => row.map((value, i) => cellText(value, percent[i])));
    const state = {
      sorted: report.members.sorted,
      descending: report.members.descending,
      first: 0,
      order: rows.map((_, i) => i),
    };
    const body = byId("members-table").tBodies[0];
    const heads = [...byId("members-table").tHead.rows[0].cells];

    function compare(a, b) {
      const [x, y] = [rows[a][state.sorted], rows[b][state.sorted]];
      if (x === null || y === null) return (x === null) - (y === null) || a - b; // these come last
      const both = typeof x === "number" && typeof y === "number";
      const by = both ? x - y : collator.compare(x, y);
      return (state.descending ? -by : by) || a - b;
    }

    function wanted() {
      const text = byId("filter").value.trim().toLowerCase();
      const status = byId("status-filter").value;
      const at = report.members.status;
      return state.order.filter(
        (i) =>
          (!status || rows[i][at] === status) &&
          (!text || texts[i].some((each) => each.toLowerCase().includes(text)))
      );
    }

    function rowOf(i) {
      const row = document.createElement("tr");
      texts[i].forEach((text, at) => {
        const cell = document.createElement(at ? "td" : "th");
        if (!at) cell.scope = "row";
        cell.textContent = text;
        row.append(cell);
      });
      return row;
    }

    function render() {
      const found = wanted();
      state.first = Math.min(state.first, PAGE * Math.floor(Math.max(0, found.length - 1) / PAGE));
      const part = found.slice(state.first, state.first + PAGE);
      body.replaceChildren(...part.map(rowOf));
      const number = (n) => n.toLocaleString("en");
      const filtered = found.length < rows.length ? ` (filtered from ${number(rows.length)})` : "";
      const range = `${number(state.first + 1)} to ${number(state.first + part.length)}`;
      const all = `${number(found.length)} members${filtered}`;
      byId("shown").textContent = part.length ? `${range} of ${all}` : `no member of ${number(rows.length)} is like that`;
      byId("previous").disabled = state.first === 0;
      byId("next").disabled = state.first + PAGE >= found.length;
      heads.forEach((head, i) => {
        const direction = state.descending ? "descending" : "ascending";
        head.setAttribute("aria-sort", i === state.sorted ? direction : "none");
      });
    }

    function sortBy(i) {
      state.descending = i === state.sorted ? !state.descending : percent[i];
      state.sorted = i;
      state.first = 0;
      state.order.sort(compare);
      render();
    }

    function turn(by) {
      state.first = Math.max(0, state.first + by);
      render();
    }

    function filter() {
      state.first = 0;
      render();
    }

    heads.forEach((head, i) => head.firstChild.addEventListener("click", () => sortBy(i)));
    byId("previous").addEventListener("click", () => turn(-PAGE));
    byId("next").addEventListener("click", () => turn(PAGE));
    byId("filter").addEventListener("input", filter);
    byId("status-filter").addEventListener("change", filter);
    if (columns.length) render();
  }

  // A run that goes on

  function addRow(row) {
    report.plots.forEach((spec) =>
      spec.series.forEach((each) => {
        if (!(each.column in row)) return;
        const value = row[each.column];
        each.x.push(row.epoch);
        each.y.push(value === null ? null : each.column.endsWith("accuracy") ? 100 * value : value);
        if (value !== null) each.last = curveText(each.y[each.y.length - 1], spec.unit);
      })
    );
    const line = document.createElement("tr");
    report.epochs.names.forEach((name, i) => {
      const cell = document.createElement(i ? "td" : "th");
      if (i) cell.className = "number";
      else cell.scope = "row";
      const value = row[name] === undefined ? null : row[name];
      cell.textContent = name === "epoch" ? String(value) : cellText(value, name.endsWith("accuracy"));
      line.append(cell);
    });
    byId("epochs").tBodies[0].append(line);
  }

  function restart(text) {
    byId("status").textContent = text;
    location.reload();
  }

  function take(news, state) {
    const other = news.begun !== state.begun || news.ended !== state.ended;
    if (other || news.count < state.count) return restart(news.status);
    news.rows.forEach(addRow);
    state.count = news.count;
    if (byId("status").textContent !== news.status) byId("status").textContent = news.status;
    if (!news.rows.length) return undefined;
    byId("epoch-count").textContent = `Table of epochs (${news.count})`;
    drawAll();
    plots.forEach((plot) => {
      plot.spec.series.forEach((each, i) => (plot.values[i].textContent = each.last));
    });
    return undefined;
  }

  async function ask(state) {
    try {
      const answer = await fetch(`rows?after=${state.count}`, { cache: "no-store" });
      if (!answer.ok) throw new Error(String(answer.status));
      const news = await answer.json();
      take(news, state);
      if (news.ended) return;
    } catch (error) {
      byId("status").textContent = "Nothing is heard of the server: is funcnet watch still there?";
    }
    setTimeout(ask, WAIT, state);
  }

  function startWatching() {
    const begun = report.epochs !== undefined;
    ask({ count: begun ? report.epochs.rows.length : 0, begun, ended: report.ended });
  }

  if (report.plots && report.plots.length) startCurves();
  if (report.members) startMembers();
  if (report.live) startWatching();
})();
