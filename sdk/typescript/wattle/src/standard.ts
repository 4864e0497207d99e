/**
 * Standard Schema, version 1 (https://standardschema.dev): what zod, valibot, arktype and the schemas of this SDK
 * have in common, so that {@link Event.json} takes any of them.
 */
export interface StandardSchema<Input = unknown, Output = Input> {
  readonly "~standard": {
    readonly version: 1;
    readonly vendor: string;
    readonly validate: (value: unknown) => StandardResult<Output> | Promise<StandardResult<Output>>;
    readonly types?: { readonly input: Input; readonly output: Output } | undefined;
  };
}

/** What a validation gives: a value, or what does not fit. */
export type StandardResult<Output> =
  { readonly value: Output; readonly issues?: undefined } | { readonly issues: readonly StandardIssue[] };

/** One thing that does not fit, and where. */
export interface StandardIssue {
  readonly message: string;
  readonly path?: readonly (PropertyKey | { readonly key: PropertyKey })[] | undefined;
}

/** The type of the values that a schema gives. */
export type Infer<Schema extends StandardSchema> = NonNullable<Schema["~standard"]["types"]>["output"];

const ISSUES_SHOWN = 8;

/** A value as a schema reads it, or what does not fit, in words. */
export function validate<Output>(
  schema: StandardSchema<unknown, Output>,
  value: unknown,
): { value: Output } | { misfit: string } {
  const result = schema["~standard"].validate(value);
  if (result instanceof Promise) {
    throw new TypeError("this schema is asynchronous, and handlers are not: use one without asynchronous checks");
  }
  if (result.issues === undefined) return { value: result.value };
  const shown = result.issues.slice(0, ISSUES_SHOWN).map(words);
  const more = result.issues.length - shown.length;
  return { misfit: shown.join("; ") + (more > 0 ? `; and ${more} more` : "") };
}

function words({ message, path }: StandardIssue): string {
  let where = "";
  for (const part of path ?? []) {
    const key = typeof part === "object" ? part.key : part;
    where += typeof key === "number" ? `[${key}]` : where === "" ? String(key) : `.${String(key)}`;
  }
  return where === "" ? message : `${where}: ${message}`;
}
