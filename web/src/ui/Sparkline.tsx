/** A small line without axes, for a glance. */
export function Sparkline({ y, label, width = 96, height = 24 }: { y: readonly (number | null)[]; label: string; width?: number; height?: number }) {
  const points = y.filter((value): value is number => value !== null);
  if (points.length < 2) return null;
  const low = Math.min(...points);
  const high = Math.max(...points);
  const span = high - low || 1;
  const path = points
    .map((value, i) => `${((i / (points.length - 1)) * (width - 2) + 1).toFixed(1)},${(height - 2 - ((value - low) / span) * (height - 4)).toFixed(1)}`)
    .join(" ");
  return (
    <svg role="img" aria-label={label} viewBox={`0 0 ${width} ${height}`} width={width} height={height} className="overflow-visible">
      <polyline points={path} fill="none" stroke="var(--series)" strokeWidth="1.5" strokeLinejoin="round" />
    </svg>
  );
}
