const dark = window.matchMedia("(prefers-color-scheme: dark)");
const narrow = () => window.innerWidth < 600;
let printing = false;

// The page's colours, which follow the reader's theme; paper is always light.
function colours() {
  return dark.matches && !printing
    ? { ink: "#e6e8eb", line: "#363c44", paper: "#15181c" }
    : { ink: "#1c2024", line: "#e3e6ea", paper: "#ffffff" };
}

// A panel's size; that on paper is not known before it is printed: A4 without its margins, on which
// up to three are side by side unless they are wide, as in the style sheet.
const PAPER = 680, GAP = 16;
function sizeOf(panel, height) {
  if (!printing) return { width: panel.clientWidth, height };
  const grid = panel.parentElement, number = grid.children.length;
  const columns = grid.classList.contains("wide") ? 1 : Math.min(3, number);
  return { width: (PAPER - GAP * (columns - 1)) / columns, height: columns > 1 ? 0.7 * height : height };
}

function layoutOf(own, panel) {
  const { ink, line, paper } = colours();
  const axis = (one) => ({
    automargin: true, exponentformat: "power", gridcolor: line, linecolor: line, zeroline: false, ...one,
    title: { standoff: 8, ...one.title },
  });
  const long = Math.max(0, ...(own.yaxis.ticktext || []).map((words) => words.length));
  return {
    ...own,
    autosize: true,
    ...sizeOf(panel, own.height),
    paper_bgcolor: paper,
    plot_bgcolor: paper,
    font: { color: ink, size: narrow() || printing ? 10 : 12, family: getComputedStyle(document.body).fontFamily },
    title: own.title && { ...own.title, font: { size: 13 } },
    margin: { l: 56, r: 12, t: own.title ? 34 : 12, b: 46 },
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: narrow() ? 10 : 11 } },
    xaxis: axis(own.xaxis),
    yaxis: axis({ ...own.yaxis, tickfont: { size: long > 18 || narrow() ? 10 : 12 } }),
    hoverlabel: { align: "left" },
    dragmode: narrow() ? false : "zoom",  // a finger scrolls
  };
}

function draw(panel) {
  const { data, layout } = figures[panel.dataset.chart][panel.dataset.panel];
  // What is pale on white would vanish on black.
  const clear = (trace) => ({ ...trace, opacity: Math.min(1, (trace.opacity ?? 1) * 1.7) });
  Plotly.react(panel, dark.matches && !printing ? data.map(clear) : data, layoutOf(layout, panel), { displayModeBar: false, responsive: false });
}

const panels = [...document.querySelectorAll(".panel")];
const FIRST = 1000;  // milliseconds in which all is drawn at once; the rest follows bit by bit

async function drawAll() {
  const begun = performance.now();
  for (const panel of panels) {
    draw(panel);
    if (performance.now() - begun > FIRST) await new Promise((resume) => setTimeout(resume));
  }
}
drawAll();

let waiting;
window.addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(drawAll, 150); });
dark.addEventListener("change", drawAll);

function drawForPrint(on) {
  printing = on;
  panels.forEach((panel) => { panel.style.height = on ? "auto" : panel.dataset.height; });
  panels.forEach(draw);
}
window.addEventListener("beforeprint", () => drawForPrint(true));
window.addEventListener("afterprint", () => drawForPrint(false));

// Where the page is served, it asks whether there is a newer one.
if (watched !== null) {
  setInterval(async () => {
    try {
      const answer = await fetch("version");
      if (answer.ok && (await answer.text()) !== watched) location.reload();
    } catch { /* the server has ended; what is shown stays */ }
  }, 3000);
}
