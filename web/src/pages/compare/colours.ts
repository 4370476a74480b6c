/** One for each run of a comparison; styles.css has both themes' values. */
export const COLOURS = ["--series", "--series-2", "--series-3", "--series-4", "--series-5", "--series-6", "--series-7", "--series-8"];
