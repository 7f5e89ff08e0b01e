// k00_scatter_add: out = scatter_add(x, index, updates)
//   test_kernel_text.py:36: "scatter": lambda: functions.scatter_add(
// x: f32[7, 64]   index: i32[5]   updates: f32[5, 64]   out: f32[7, 64]
// an invocation owns one column of four neighbours; 4,884 bytes, 320 flops
@group(0) @binding(0) var<storage, read> t_x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> t_index: array<i32>;
@group(0) @binding(2) var<storage, read> t_updates: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> t_out: array<vec4<f32>>;

// Each invocation owns a column: no two write the same element, so the order of
// additions is that of the updates and the result is the same every time.
@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    let i = (group.y * 2u + group.x) * 8u + thread;
    if (i >= 16u) {
        return; // no barriers below
    }
    for (var v = 0u; v < 7u + group.z; v++) {
        let v_x = t_x[v * 16u + i];
        t_out[v * 16u + i] = v_x;
    }
    for (var u = 0u; u < 5u + group.z; u++) {
        let v_index = t_index[u];
        let v_place = u32(select(v_index, v_index + 7, v_index < 0));
        let v_updates = t_updates[u * 16u + i];
        if (v_place < 7u) {
            let v_out = t_out[v_place * 16u + i];
            t_out[v_place * 16u + i] = v_out + v_updates;
        }
    }
}
