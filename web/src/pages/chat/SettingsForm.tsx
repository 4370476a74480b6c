/** System prompt and sampling. */
import type { ReactNode } from "react";
import type { Sampling } from "../../lib/chat";
import { t } from "../../texts";
import type { Settings } from "./useConversation";

type Props = { settings: Settings; onChange: (settings: Settings) => void };

export function SettingsForm({ settings, onChange }: Props) {
  const { sampling } = settings;
  const set = (name: keyof Sampling, value: number | undefined) => {
    const { [name]: _, ...others } = sampling;
    onChange({ ...settings, sampling: { ...others, ...(value === undefined ? {} : { [name]: value }) } as Sampling });
  };
  /** Empty: the service's own. */
  const field = (name: keyof Sampling, label: ReactNode, bounds: { min: number; max: number; step?: number }) => (
    <label className="flex flex-col gap-1">
      {label}
      <input
        type="number"
        className="field"
        placeholder={t.create.auto}
        {...bounds}
        value={sampling[name] ?? ""}
        onChange={(event) => set(name, event.target.value === "" ? undefined : Number(event.target.value))}
      />
    </label>
  );
  return (
    <div className="mt-2 grid grid-cols-2 gap-3 sm:grid-cols-4">
      <label className="col-span-2 flex flex-col gap-1 sm:col-span-4">
        {t.chat.system}
        <textarea rows={2} className="field" value={settings.system} onChange={(event) => onChange({ ...settings, system: event.target.value })} />
      </label>
      <label className="col-span-2 flex flex-col gap-1">
        <span>
          {t.chat.temperature} <output className="font-medium">{sampling.temperature}</output>
        </span>
        <input type="range" min={0} max={2} step={0.1} className="accent-(--accent)" value={sampling.temperature} onChange={(event) => set("temperature", Number(event.target.value))} />
      </label>
      {field("max_tokens", t.chat.maxTokens, { min: 1, max: 8192 })}
      {field("top_k", t.chat.topK, { min: 0, max: 1000 })}
      {field("top_p", t.chat.topP, { min: 0.05, max: 1, step: 0.05 })}
      {field("seed", t.chat.seed, { min: 0, max: 2 ** 31 })}
      <label className="col-span-2 flex items-center gap-2 self-end">
        <input type="checkbox" checked={settings.probabilities} onChange={(event) => onChange({ ...settings, probabilities: event.target.checked })} />
        {t.chat.probabilities}
      </label>
    </div>
  );
}
