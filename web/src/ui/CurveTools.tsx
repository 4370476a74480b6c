/** What a reader of curves may change: the x axis, the scale of y, how much is smoothed. */
import { t } from "../texts";

type Axis = keyof typeof t.run.axes;

export function CurveTools<A extends Axis>({
  axes,
  axis,
  onAxis,
  log,
  onLog,
  strength,
  onStrength,
}: {
  axes: readonly A[];
  axis: A;
  onAxis: (axis: A) => void;
  log: boolean;
  onLog: (log: boolean) => void;
  strength: number;
  onStrength: (strength: number) => void;
}) {
  return (
    <>
      <label className="flex items-center gap-1.5 text-soft">
        {t.run.axis}
        <select className="field py-0.5 text-ink" value={axis} onChange={(event) => onAxis(event.target.value as A)}>
          {axes.map((name) => (
            <option key={name} value={name}>
              {t.run.axes[name]}
            </option>
          ))}
        </select>
      </label>
      <label className="flex items-center gap-1.5 text-soft">
        <input type="checkbox" checked={log} onChange={(event) => onLog(event.target.checked)} />
        {t.run.logScale}
      </label>
      <label className="flex items-center gap-1.5 text-soft">
        {t.run.smoothing}
        <input type="range" min={0} max={1} step={0.05} value={strength} onChange={(event) => onStrength(Number(event.target.value))} className="w-24 accent-(--accent)" />
      </label>
    </>
  );
}
