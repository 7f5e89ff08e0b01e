// k00_concatenate: out = concatenate(x, y)
//   test_kernel_text.py:34: "concatenate": lambda: functions.concatenate([_x(4, 8), asg.input("y", (4, 4))], 1),
// x: f32[4, 8]   y: f32[4, 4]   out: f32[4, 12]
// 4 elements per invocation, workgroup 64; 384 bytes, 0 flops
@group(0) @binding(0) var<storage, read> t_x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> t_y: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> t_out: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    let i = (group.y * 1u + group.x) * 64u + thread;
    if (i >= 12u) {
        return; // no barriers below
    }
    let v_y = t_y[i / 3u + i % 3u - 2u];
    let v_x = t_x[i / 3u * 2u + i % 3u];
    let v_concatenate = select(vec4f(0.0f), v_x, (vec4u(i % 3u * 4u) + vec4u(0u, 1u, 2u, 3u)) < vec4u(8u));
    let v_concatenate_1 = select(v_concatenate, v_y, (vec4u(i % 3u * 4u - 8u) + vec4u(0u, 1u, 2u, 3u)) < vec4u(4u));
    t_out[i] = v_concatenate_1;
}
