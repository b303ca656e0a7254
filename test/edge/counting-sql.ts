/** A storage that counts the rows that are read from it: what a look costs, whatever the machine. */

export function countingSql(sql: SqlStorage): { readonly sql: SqlStorage; readonly rowsRead: () => number } {
  let read = 0;
  const exec = (...given: Parameters<SqlStorage["exec"]>) => {
    const cursor = sql.exec(...given);
    const rows = cursor.toArray();
    read += cursor.rowsRead;
    return { toArray: () => rows };
  };
  return { sql: { exec } as unknown as SqlStorage, rowsRead: () => read };
}
