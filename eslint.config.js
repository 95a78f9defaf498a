import tseslint from 'typescript-eslint';

/** Layers: what a folder may not import from the others of ours. Only workers/, src/cli and infra/ put parts together. */
function layer(files, forbidden, message, allowTypeImports = false) {
  return {
    files,
    rules: {
      '@typescript-eslint/no-restricted-imports': [
        'error',
        { patterns: [{ regex: forbidden, message, allowTypeImports }] },
      ],
    },
  };
}

export default tseslint.config(
  { ignores: ['dist/**', 'node_modules/**', '**/*.lua'] },
  ...tseslint.configs.recommendedTypeChecked,
  {
    languageOptions: {
      parserOptions: {
        projectService: {
          allowDefaultProject: ['eslint.config.js', 'bin/*.mjs', 'infra/*.mjs', '.ci/*.mjs'],
        },
        tsconfigRootDir: import.meta.dirname,
      },
    },
    rules: {
      '@typescript-eslint/no-floating-promises': 'error',
      '@typescript-eslint/switch-exhaustiveness-check': 'error',
      '@typescript-eslint/restrict-template-expressions': [
        'error',
        { allowNumber: true, allowBoolean: true },
      ],
      '@typescript-eslint/require-await': 'off',
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }],
    },
  },
  { files: ['**/*.js', '**/*.mjs'], ...tseslint.configs.disableTypeChecked },
  layer(['src/routing/**'], '^\\.\\./(?!errors)', 'src/routing imports nothing of ours but src/errors.'),
  layer(
    ['src/topology/**'],
    '^\\.\\./(?!(routing/|errors))',
    'src/topology imports only src/routing and src/errors.',
  ),
  layer(
    ['workflows/**'],
    '(activities/|workers/|replicators/|src/(fence|rule-center|gateway|sdk|cli|topology|observability)|^node:)',
    'Workflows see types of activities only, no I/O and no Node built-ins.',
    true,
  ),
  layer(
    ['src/fence/**', 'src/rule-center/**', 'src/gateway/**', 'src/sdk/**', 'src/observability/**'],
    '(\\.\\./cli/|/workers/|/workflows/|/activities/|/infra/)',
    'Only workers/, src/cli and infra/ put parts together.',
  ),
  layer(
    ['activities/**', 'replicators/**'],
    '(/workers/|/src/cli/|/infra/)',
    'Only workers/, src/cli and infra/ put parts together.',
  ),
);
