export const ComparePage = (_: { query: URLSearchParams }) => null;
