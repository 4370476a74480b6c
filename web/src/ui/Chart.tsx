/** A line chart on uPlot: follows its box, the theme and its data; hovering reads the values. */
import { useEffect, useRef, useState } from "react";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { number } from "../lib/format";
import { t } from "../texts";
import { themeChanged } from "../theme";

export type Line = { label: string; y: readonly (number | null)[]; colour: string; width?: number; points?: boolean };

type Props = { x: readonly number[]; lines: readonly Line[]; height: number; log?: boolean; label: string };

export function Chart({ x, lines, height, log = false, label }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  /** Whoever dragged over a part stays there while new points come. */
  const zoomed = useRef(false);
  const [hover, setHover] = useState<number | null>(null);
  const [theme, setTheme] = useState(0);
  const shape = lines.map((line) => `${line.label} ${line.colour} ${line.width} ${line.points}`).join("|");

  useEffect(() => themeChanged(() => setTheme((n) => n + 1)), []);

  useEffect(() => {
    const element = box.current;
    if (!element) return;
    const colour = (name: string) => getComputedStyle(element).getPropertyValue(name).trim();
    const axis: uPlot.Axis = {
      stroke: colour("--soft"),
      grid: { stroke: colour("--grid"), width: 1 },
      ticks: { show: false },
      font: `11px ${getComputedStyle(element).fontFamily}`,
    };
    const made = new uPlot(
      {
        width: Math.max(120, element.clientWidth),
        height,
        cursor: { y: false, points: { size: 6 }, drag: { x: true, y: false } },
        legend: { show: false },
        padding: [8, 18, 0, 0],
        scales: { x: { time: false }, y: { distr: log ? 3 : 1 } },
        axes: [
          { ...axis, size: 26, values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : short(tick))) },
          { ...axis, size: 46, values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : short(tick))) },
        ],
        series: [
          {},
          ...lines.map((line) => ({
            label: line.label,
            stroke: colour(line.colour),
            width: line.width ?? 1.75,
            spanGaps: true,
            points: { show: line.points ?? false, size: 5, fill: colour(line.colour) },
          })),
        ],
        hooks: {
          setCursor: [(u) => setHover(u.cursor.idx ?? null)],
          setSelect: [(u) => void (zoomed.current ||= u.select.width > 0)],
        },
      },
      dataOf(x, lines, log),
      element,
    );
    plot.current = made;
    zoomed.current = false;
    const zoomOut = () => (zoomed.current = false); // uPlot itself shows everything again
    made.over.addEventListener("dblclick", zoomOut);
    const resize = new ResizeObserver(() => made.setSize({ width: Math.max(120, element.clientWidth), height }));
    resize.observe(element);
    return () => {
      resize.disconnect();
      made.destroy();
      plot.current = null;
    };
    // the data comes in through the effect below: a new chart only for a new shape
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [shape, height, log, theme]);

  useEffect(() => {
    const u = plot.current;
    if (!u) return;
    u.setData(dataOf(x, lines, log), !zoomed.current);
    if (zoomed.current) u.redraw();
  }, [x, lines, log]);

  const index = hover !== null && hover < x.length ? hover : x.length - 1;
  return (
    <figure className="min-w-0" aria-label={`${label}: ${lines.map((line) => `${line.label} ${number(lastOf(line.y))}`).join(", ")}`}>
      <figcaption className="flex flex-wrap gap-x-4 px-4 pt-1 text-xs text-soft">
        {lines.map((line) => (
          <span key={line.label} className="inline-flex items-center gap-1.5">
            <span aria-hidden className="h-0.5 w-3 rounded" style={{ background: `var(${line.colour})` }} />
            {line.label}
            <b className="font-medium text-ink">{number(hover === null ? lastOf(line.y) : line.y[index])}</b>
          </span>
        ))}
        {hover !== null && x.length > 0 && <span className="ml-auto">{t.run.atStep(short(x[index] as number))}</span>}
      </figcaption>
      <div ref={box} className="w-full overflow-hidden" style={{ height }} />
    </figure>
  );
}

function dataOf(x: readonly number[], lines: readonly Line[], log: boolean): uPlot.AlignedData {
  // zero has no place on a log axis
  const ys = lines.map((line) => (log ? line.y.map((v) => (v !== null && v > 0 ? v : null)) : [...line.y]));
  return [[...x], ...ys] as uPlot.AlignedData;
}

function lastOf(values: readonly (number | null)[]): number | null {
  for (let i = values.length - 1; i >= 0; i -= 1) if (values[i] != null) return values[i] as number;
  return null;
}

function short(value: number): string {
  const size = Math.abs(value);
  if (size >= 10_000) return Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 }).format(value);
  if (size > 0 && size < 0.001) return value.toExponential(0);
  return String(Number(value.toPrecision(4)));
}
