/** A word in a log: looked for in the lines while all of them are held, else by the service. */
import { useEffect, useMemo, useState } from "react";
import { findInLog } from "../../api/queries";
import { LogSearch } from "../../lib/search";
import type { LogWindow } from "../../live/logWindow";

/** Whoever types changes their mind: only what stands for a moment is asked. */
const PAUSE_MS = 250;

/** `found`: numbers of lines while the log is whole, else the bytes where lines begin. */
export type Matches = {
  found: readonly number[];
  byBytes: boolean;
  busy: boolean;
  more: (() => Promise<number>) | null;
  /** Ask once more, after the service did not answer. */
  again: (() => void) | null;
};

type Asked = { word: string; log: LogWindow; found: number[]; last: number; failed?: boolean };

export function useLogSearch(runId: string, log: LogWindow, word: string): Matches {
  const [asked, setAsked] = useState<Asked | null>(null);
  const { whole, version, opened } = log;
  // eslint-disable-next-line react-hooks/exhaustive-deps
  const search = useMemo(() => (word && whole ? new LogSearch(log, word) : null), [log, word, whole, opened]);
  // the lines are changed in place; their version tells when
  // eslint-disable-next-line react-hooks/exhaustive-deps
  const near = useMemo(() => search?.look() ?? [], [search, version]);
  const far = asked?.word === word && asked.log === log ? asked : null;

  const wanted = word !== "" && !whole && !far;
  useEffect(() => {
    if (!wanted) return;
    const control = new AbortController();
    const timer = setTimeout(() => {
      void findInLog(runId, word, log.start, control.signal).then(
        (answer) => setAsked({ word, log, ...answer }),
        () => control.signal.aborted || setAsked({ word, log, found: [], last: log.end, failed: true }),
      );
    }, PAUSE_MS);
    return () => {
      clearTimeout(timer);
      control.abort();
    };
  }, [wanted, runId, log, word]);

  if (whole) return { found: near, byBytes: false, busy: false, more: null, again: null };
  const more = async () => {
    if (!far) return 0;
    const { found, last } = await findInLog(runId, word, far.last, new AbortController().signal);
    setAsked({ ...far, found: [...far.found, ...found], last });
    return found.length;
  };
  const again = far?.failed ? () => setAsked(null) : null;
  return { found: far?.found ?? [], byBytes: true, busy: wanted, more: far && far.last < log.end ? more : null, again };
}
