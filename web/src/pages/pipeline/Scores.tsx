/** What chat tuning changed: the evaluation's scores before and after, task by task, and answers to look at. */
import { useEvaluations } from "../../api/queries";
import type { Evaluation } from "../../api/types";
import { t } from "../../texts";
import { Card } from "../../ui/basics";
import { Share } from "../../ui/ResultTable";
import { ReportTable } from "./ReportTable";

export type Example = { task: string; prompt: string; answer: string; expected: string; ok: boolean };

const NAME = "chat_eval";

export function Scores({ evaluations }: { evaluations: readonly Evaluation[] }) {
  const after = evaluations.find(({ name }) => name === NAME);
  const before = evaluations.find(({ name }) => name === `${NAME}/before`);
  if (!after && !before) return null;
  const tasks = Object.keys((after ?? before)?.values ?? {});
  return (
    <Card title={t.pipeline.scores}>
      <p className="px-4 pt-3 text-soft">{t.pipeline.scoresHint}</p>
      <ul className="grid gap-x-8 gap-y-4 p-4 sm:grid-cols-2 lg:grid-cols-3">
        {tasks.map((task) => (
          <li key={task}>
            <div className="flex items-baseline justify-between">
              <span className="font-medium">{task}</span>
              <span className="text-xs text-soft">
                {(after ?? before)?.counts?.[task] ?? "–"} {t.pipeline.questions}
              </span>
            </div>
            <Score label={t.pipeline.before} evaluation={before} task={task} tone="bg-soft" />
            <Score label={t.pipeline.after} evaluation={after} task={task} tone="bg-good" />
          </li>
        ))}
      </ul>
      {after && <Examples examples={(after.details?.["examples"] ?? []) as Example[]} />}
    </Card>
  );
}

function Score({ label, evaluation, task, tone }: { label: string; evaluation: Evaluation | undefined; task: string; tone: string }) {
  const share = evaluation?.values[task];
  if (share === undefined) return null;
  const intervals = evaluation?.details?.["intervals"] as Record<string, [number, number]> | undefined;
  const interval = intervals?.[task];
  return (
    <div className="mt-1 grid grid-cols-[3.2rem_1fr_6.500rem] items-center gap-2 text-xs">
      <span className="text-soft">{label}</span>
      <span className="relative h-2 rounded-sm bg-well" aria-hidden>
        <span className={`absolute inset-y-0 left-0 rounded-sm ${tone}`} style={{ width: `${share * 100}%` }} />
        {interval && (
          <span
            className="absolute top-1/2 h-px bg-ink"
            style={{ left: `${interval[0] * 100}%`, width: `${Math.max(0, interval[1] - interval[0]) * 100}%` }}
          />
        )}
      </span>
      <span className="text-right">
        <Share score={{ value: share, share: true, low: interval?.[0], high: interval?.[1] }} />
      </span>
    </div>
  );
}

function Examples({ examples }: { examples: readonly Example[] }) {
  if (examples.length === 0) return null;
  return (
    <details className="border-t border-line">
      <summary className="px-4 py-2 text-soft hover:text-ink">
        {t.pipeline.examples} ({examples.length})
      </summary>
      <ul className="divide-y divide-line border-t border-line">
        {examples.map((example, index) => (
          <li key={index} className="grid gap-x-4 gap-y-1 px-4 py-2 sm:grid-cols-[6rem_1fr_1fr]">
            <span className={example.ok ? "text-good" : "text-bad"}>
              {example.task}: {example.ok ? t.pipeline.right : t.pipeline.wrong}
            </span>
            <span className="break-words whitespace-pre-wrap">
              <span className="sr-only">{t.pipeline.asked}: </span>
              {example.prompt}
            </span>
            <span className="break-words whitespace-pre-wrap">
              <span className="sr-only">{t.pipeline.answered}: </span>
              {example.answer}
              {!example.ok && (
                <span className="block text-soft">
                  {t.pipeline.expected}: {example.expected}
                </span>
              )}
            </span>
          </li>
        ))}
      </ul>
    </details>
  );
}

/** Two models: bars before and after. More: the report's table, and answers of the newest one. */
export function PipelineScores({ pipelineId, live }: { pipelineId: string; live: boolean }) {
  const found = useEvaluations({ pipeline: pipelineId }).data?.items ?? [];
  const chats = found.filter(({ name }) => name === NAME);
  if (chats.length === 1 && found.every(({ name }) => name.startsWith(NAME))) return <Scores evaluations={found} />;
  const examples = (chats[0]?.details?.["examples"] ?? []) as Example[];
  return (
    <>
      <ReportTable pipelineId={pipelineId} live={live} />
      {examples.length > 0 && (
        <Card>
          <Examples examples={examples} />
        </Card>
      )}
    </>
  );
}
