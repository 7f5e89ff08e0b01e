// k00_gather: out = gather(x, index)
//   test_kernel_text.py:35: "gather": lambda: functions.take(_x(10, 8), asg.input("index", (5,), "i32"), 0),
// x: f32[10, 8]   index: i32[5]   out: f32[5, 8]
// 4 elements per invocation, workgroup 64; 500 bytes, 0 flops
@group(0) @binding(0) var<storage, read> t_x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> t_index: array<i32>;
@group(0) @binding(2) var<storage, read_write> t_out: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    let i = (group.y * 1u + group.x) * 64u + thread;
    if (i >= 10u) {
        return; // no barriers below
    }
    let v_index = t_index[i / 2u];
    let v_row = u32(clamp(select(v_index, v_index + 10, v_index < 0), 0, 9));
    let v_x = t_x[v_row * 2u + i % 2u];
    t_out[i] = v_x;
}
