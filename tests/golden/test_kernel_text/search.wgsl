// k00_search_rows: out = search_rows(keys, x)
//   test_kernel_text.py:44: "search": lambda: functions.searchsorted(
// keys: u32[9]   x: u32[3]   out: i32[3]
// one key per invocation, workgroup 8; 60 bytes, 9 flops
@group(0) @binding(0) var<storage, read> t_keys: array<u32>;
@group(0) @binding(1) var<storage, read> t_x: array<u32>;
@group(0) @binding(2) var<storage, read_write> t_out: array<i32>;

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    let i = (group.y * 1u + group.x) * 8u + thread;
    if (i >= 3u) {
        return; // no barriers below
    }
    let v_x = t_x[i];
    var low = 0u;
    var high = 9u;
    while (low < high) {
        let middle = (low + high) >> 1u;
        let v_keys = t_keys[middle];
        if (v_keys < v_x) {
            low = middle + 1u;
        } else {
            high = middle;
        }
    }
    t_out[i] = i32(low);
}
