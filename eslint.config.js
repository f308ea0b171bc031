// Few rules, all errors. What the compiler, Prettier, dependency-cruiser, knip or tools/style already
// checks is not repeated here.
import tseslint from 'typescript-eslint';

// Published code takes its environment from the caller: nothing global, nothing printed, no clock and no
// dice of its own. The command line and tests are the callers, so they are free.
const pure = [
  {
    selector: 'Program > VariableDeclaration[kind="let"]',
    message: 'module-level mutable state: pass it in or keep it in an object that the caller owns',
  },
  {
    selector: 'Program > ExportNamedDeclaration > VariableDeclaration[kind="let"]',
    message: 'module-level mutable state: pass it in or keep it in an object that the caller owns',
  },
  {
    selector: 'MemberExpression[object.name="process"][property.name="env"]',
    message: 'library code reads no environment: take an option instead',
  },
  {
    selector:
      'MemberExpression[object.name="Math"][property.name="random"], MemberExpression[object.name="Date"][property.name="now"]',
    message: 'time and randomness are passed in',
  },
];

export default tseslint.config(
  { ignores: ['**/dist/**', '**/node_modules/**', 'docs-site/**', '.nx/**'] },
  { linterOptions: { reportUnusedDisableDirectives: 'error' } },
  {
    files: ['**/*.ts'],
    plugins: { '@typescript-eslint': tseslint.plugin },
    languageOptions: {
      parser: tseslint.parser,
      parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname },
    },
    rules: {
      '@typescript-eslint/await-thenable': 'error',
      '@typescript-eslint/ban-ts-comment': 'error',
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/no-explicit-any': 'error',
      '@typescript-eslint/no-floating-promises': 'error',
      '@typescript-eslint/no-misused-promises': 'error',
      '@typescript-eslint/no-non-null-assertion': 'error',
      '@typescript-eslint/no-unused-vars': [
        'error',
        { argsIgnorePattern: '^_', varsIgnorePattern: '^_' },
      ],
      '@typescript-eslint/switch-exhaustiveness-check': [
        'error',
        { considerDefaultExhaustiveForUnions: true },
      ],
      eqeqeq: 'error',
      'no-var': 'error',
      'prefer-const': 'error',
    },
  },
  {
    files: ['packages/*/src/**/*.ts'],
    ignores: ['packages/cli/**', '**/*.test.ts', '**/testing.ts'],
    rules: { 'no-console': 'error', 'no-restricted-syntax': ['error', ...pure] },
  },
);
