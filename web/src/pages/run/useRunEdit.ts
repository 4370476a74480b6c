/** A change of a run's tags or notes, from the click that begins it until it is stored. */
import { useState } from "react";
import { ChangedElsewhere, usePatchRun } from "../../api/queries";
import type { RunRecord } from "../../api/types";

export function useRunEdit(run: RunRecord) {
  const [begun, setBegun] = useState<RunRecord | null>(null);
  const patch = usePatchRun();
  return {
    /** The run as it was then; null while nothing is changed. */
    begun,
    begin: () => {
      patch.reset();
      setBegun(run);
    },
    leave: () => setBegun(null),
    /** Refused once when somebody else was quicker; who saves again has read what they wrote. */
    save: (change: { tags?: string[]; notes?: string }) =>
      begun &&
      patch.mutate(
        { run: begun, ...change },
        { onSuccess: () => setBegun(null), onError: (error) => error instanceof ChangedElsewhere && setBegun(error.now) },
      ),
    busy: patch.isPending,
    error: patch.error,
  };
}
