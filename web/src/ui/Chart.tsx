/** A line chart on uPlot: follows its box, the theme and its data; hovering reads the values, dragging zooms.
 *  Charts with the same `sync` share their crosshair, those with the same `zoom` their part of the x axis. */
import { type RefObject, useEffect, useMemo, useRef, useState } from "react";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { drawable, isGap, type Values } from "../lib/curve";
import { number, short } from "../lib/format";
import { themeChanged } from "../theme";
import { glyph, type Mark, marksPlugin } from "./marks";

export type Line = { label: string; y: Values; colour: string; width?: number; points?: boolean };

export type Range = readonly [from: number, to: number];
export type Zoom = { range: Range | null; choose: (range: Range | null) => void };

type Props = {
  x: Float64Array | readonly number[];
  lines: readonly Line[];
  height: number;
  label: string;
  log?: boolean;
  zoom?: Zoom;
  marks?: readonly Mark[];
  sync?: string;
  /** A place of the x axis in words; and short, below a tick. */
  place?: (x: number) => string;
  tick?: (x: number) => string;
};

const NO_MARKS: readonly Mark[] = [];

export function Chart({ x, lines, height, label, log = false, zoom, marks = NO_MARKS, sync, place = short, tick = short }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const [hover, setHover] = useState<number | null>(null);
  const theme = useTheme();
  const [own, setOwn] = useState<Range | null>(null);
  const range = zoom ? zoom.range : own;
  const choose = zoom ? zoom.choose : setOwn;
  const data = useMemo(() => dataOf(x, lines, log), [x, lines, log]);
  // what uPlot's own callbacks read: they outlive a drawing
  const now = useRef<Now>(null as never);
  now.current = { range, choose, marks, tick, hovered: setHover, data };
  const shape = lines.map((line) => `${line.label} ${line.colour} ${line.width} ${line.points}`).join("|");

  useEffect(
    () => (box.current ? draw(box.current, plot, now, { lines: lines.map(looks), height, log, sync }) : undefined),
    // the data comes in through the effect below: a new chart only for a new shape
    // eslint-disable-next-line react-hooks/exhaustive-deps
    [shape, height, log, theme, sync],
  );

  useEffect(() => {
    // scales are asked for again with every change of the data, so a part that was zoomed into stays
    plot.current?.setData(data);
  }, [data, range, marks]);

  const index = hover !== null && hover < x.length ? hover : null;
  const at = index === null ? null : (x[index] as number);
  return (
    <figure className="min-w-0" aria-label={`${label}: ${lines.map((line) => `${line.label} ${number(lastOf(line.y))}`).join(", ")}`}>
      <figcaption className="flex min-h-4 flex-wrap gap-x-4 px-4 pt-1 text-xs text-soft">
        {lines.map((line) => (
          <span key={line.label} className="inline-flex min-w-0 items-center gap-1.5">
            <span aria-hidden className="h-0.5 w-3 shrink-0 rounded" style={{ background: `var(${line.colour})` }} />
            <span className="truncate">{line.label}</span>
            <b className="font-medium text-ink">{number(index === null ? lastOf(line.y) : line.y[index])}</b>
          </span>
        ))}
        {at !== null && (
          <span className="ml-auto flex gap-x-3">
            {nearby(plot.current, marks, at).map((mark) => (
              <span key={mark.label}>
                {glyph(mark.kind)} {mark.label}
              </span>
            ))}
            {place(at)}
          </span>
        )}
      </figcaption>
      <div ref={box} className="w-full overflow-hidden" style={{ height }} />
    </figure>
  );
}

/** Another number whenever the colours are others. */
function useTheme(): number {
  const [theme, setTheme] = useState(0);
  useEffect(() => themeChanged(() => setTheme((n) => n + 1)), []);
  return theme;
}

type Now = Zoom & { marks: readonly Mark[]; tick: (x: number) => string; hovered: (index: number | null) => void; data: uPlot.AlignedData };
type Looks = Omit<Line, "y">;
const looks = ({ y: _, ...rest }: Line): Looks => rest;

/** Makes the chart; what it returns removes it. Out here, because it lives as long as the page: made in the component,
 *  its callbacks would hold the data of that one rendering as long. */
function draw(
  element: HTMLElement,
  plot: RefObject<uPlot | null>,
  now: RefObject<Now>,
  { lines, height, log, sync }: { lines: readonly Looks[]; height: number; log: boolean; sync: string | undefined },
): () => void {
  const colour = (name: string) => getComputedStyle(element).getPropertyValue(name).trim();
  const axis: uPlot.Axis = {
    stroke: colour("--soft"),
    grid: { stroke: colour("--grid"), width: 1 },
    ticks: { show: false },
    font: `11px ${getComputedStyle(element).fontFamily}`,
  };
  const named = (name: (value: number) => string) => (_: uPlot, ticks: (number | null)[]) => ticks.map((value) => (value === null ? "" : name(value)));
  const made = new uPlot(
    {
      width: Math.max(120, element.clientWidth),
      height,
      cursor: {
        y: false,
        points: { size: 6 },
        drag: { x: true, y: false, setScale: false },
        ...(sync !== undefined && { sync: { key: sync, scales: ["x", null] } }),
      },
      legend: { show: false },
      padding: [8, 18, 0, 0],
      scales: {
        x: { time: false, range: (_, low, high) => [...(now.current.range ?? [low, high])] as [number, number] },
        y: { distr: log ? 3 : 1 },
      },
      axes: [
        { ...axis, size: 26, values: named((value) => now.current.tick(value)) },
        { ...axis, size: 46, values: named(short) },
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
      plugins: [marksPlugin(() => now.current.marks, colour)],
      hooks: {
        setCursor: [(u) => now.current.hovered(u.cursor.idx ?? null)],
        setSelect: [
          (u) => {
            const { left, width } = u.select;
            if (width < 4) return;
            now.current.choose([u.posToVal(left, "x"), u.posToVal(left + width, "x")]);
            u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
          },
        ],
      },
    },
    now.current.data,
    element,
  );
  plot.current = made;
  made.over.addEventListener("dblclick", () => now.current.choose(null));
  const resize = new ResizeObserver(() => made.setSize({ width: Math.max(120, element.clientWidth), height }));
  resize.observe(element);
  return () => {
    resize.disconnect();
    made.destroy();
    plot.current = null;
  };
}

function dataOf(x: Props["x"], lines: readonly Line[], log: boolean): uPlot.AlignedData {
  return [x, ...lines.map(({ y }) => drawable(y, log))] as uPlot.AlignedData;
}

const NEAR_PX = 8;

function nearby(u: uPlot | null, marks: readonly Mark[], at: number): Mark[] {
  if (!u) return [];
  const here = u.valToPos(at, "x");
  return marks.filter((mark) => Math.abs(u.valToPos(mark.x, "x") - here) <= NEAR_PX);
}

function lastOf(values: Values): number | null {
  for (let i = values.length - 1; i >= 0; i -= 1) if (!isGap(values[i])) return values[i] as number;
  return null;
}
