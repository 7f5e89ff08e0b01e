// k00_sum: out = sum(x)
//   test_kernel_text.py:47: "columns": lambda: _x(16, 8).sum(axis=0),
// x: f32[16, 8]   out: f32[8]
// serial: 1 invocation(s) per row, 32 row(s) per workgroup, 4 rows at once, 4 step(s) per trip; 544 bytes, 128 flops
@group(0) @binding(0) var<storage, read> t_x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> t_out: array<vec4<f32>>;

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    let row = (group.y * 1u + group.x) * 8u + thread;
    if (row >= 2u) {
        return; // no barriers below
    }
    var v_acc_out = vec4f(0.0f);
    // Adding `group.z`, which is 0, hides the count from the driver: it would unroll the loop and
    // take seconds to compile.
    for (var k = 0u; k < 16u + group.z; k += 4u) {
        let v_x = t_x[k * 2u + row];
        v_acc_out = v_acc_out + v_x;
        let v_x_1 = t_x[k * 2u + row + 2u];
        v_acc_out = v_acc_out + v_x_1;
        let v_x_2 = t_x[k * 2u + row + 4u];
        v_acc_out = v_acc_out + v_x_2;
        let v_x_3 = t_x[k * 2u + row + 6u];
        v_acc_out = v_acc_out + v_x_3;
    }
    let v_out = v_acc_out;
    t_out[row] = v_out;
}
