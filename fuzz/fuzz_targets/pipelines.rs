#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    ductile_config::fuzzing::pipelines(input);
});
