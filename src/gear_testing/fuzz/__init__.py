"""Coverage-guided fuzzing of what reads bytes: ``python -m gear_testing.fuzz decoder``.

It needs the extra ``fuzz``, which is atheris. `gear_testing.fuzz.targets` has what is fuzzed, and
`gear_testing.fuzz.corpus` the inputs that are kept. This module imports nothing, as atheris has to see every import.
"""
