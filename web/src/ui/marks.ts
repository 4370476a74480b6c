/** What happened along the x axis of a chart: a fine line from top to bottom, with a sign at its head. */
import type uPlot from "uplot";

export type MarkKind = "attempt" | "checkpoint" | "evaluation";
export type Mark = { x: number; kind: MarkKind; label: string };

const LOOKS: Record<MarkKind, { sign: string; colour: string }> = {
  attempt: { sign: "▼", colour: "--warn" },
  checkpoint: { sign: "◆", colour: "--good" },
  evaluation: { sign: "●", colour: "--series-2" },
};

export const glyph = (kind: MarkKind): string => LOOKS[kind].sign;
export const markColour = (kind: MarkKind): string => LOOKS[kind].colour;

/** Signs closer than this hide each other: the later one is left out, its line stays. */
const APART_PX = 9;

export function marksPlugin(marks: () => readonly Mark[], colour: (name: string) => string): uPlot.Plugin {
  const draw = (u: uPlot) => {
    const { ctx, bbox } = u;
    const ratio = devicePixelRatio;
    ctx.save();
    ctx.font = `${9 * ratio}px sans-serif`;
    ctx.textAlign = "center";
    ctx.setLineDash([2 * ratio, 3 * ratio]);
    ctx.lineWidth = ratio;
    let free = -Infinity;
    for (const mark of [...marks()].sort((a, b) => a.x - b.x)) {
      const x = u.valToPos(mark.x, "x", true);
      if (!(x >= bbox.left && x <= bbox.left + bbox.width)) continue;
      ctx.strokeStyle = ctx.fillStyle = colour(markColour(mark.kind));
      ctx.globalAlpha = 0.55;
      ctx.beginPath();
      ctx.moveTo(x, bbox.top + 4 * ratio);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
      if (x < free) continue;
      free = x + APART_PX * ratio;
      ctx.globalAlpha = 1;
      ctx.fillText(glyph(mark.kind), x, bbox.top + 4 * ratio);
    }
    ctx.restore();
  };
  return { hooks: { draw: [draw] } };
}
