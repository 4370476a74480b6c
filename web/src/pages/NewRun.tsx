export const NewRunPage = (_: { query: URLSearchParams }) => null;
