// product: y = matmul → broadcast → add(x, w, bias)
// x: f32[30, 16]   w: f32[16, 36]   bias: f32[36]   y: f32[30, 36]
// staged: 4x4 per invocation, workgroup 64, depth 8; 8,688 bytes, 35,640 flops
@group(0) @binding(0) var<storage, read> t_x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> t_w: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> t_bias: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> t_y: array<vec4<f32>>;

// Adds a row's four neighbours times four rows of a column quad.
fn add_product(sum: vec4f, a: vec4f, b: mat4x4f) -> vec4f {
    let first_two = fma(vec4f(a.y), b[1], fma(vec4f(a.x), b[0], sum));
    return fma(vec4f(a.w), b[3], fma(vec4f(a.z), b[2], first_two));
}

var<workgroup> rows: array<vec4f, 96>;
var<workgroup> columns: array<vec4f, 64>;

// Barriers below: no invocation leaves early, reads outside the operands are held at the edge, and
// only stores are guarded.
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    let tile = group.y * 2u + group.x;
    let thread_row = thread / 8u;
    let thread_quad = thread % 8u;
    var sum_0_0 = vec4f();
    var sum_1_0 = vec4f();
    var sum_2_0 = vec4f();
    var sum_3_0 = vec4f();
    for (var ahead = 0u; ahead <= 2u; ahead++) {
        // Loads of a stage are on their way while the stage before it is multiplied. The last trip
        // loads a stage again for nothing.
        let stage = min(ahead, 1u);
        let rows_0_outer = min(thread / 2u, 29u);
        let v_x = t_x[rows_0_outer * 4u + stage * 2u + thread % 2u];
        let columns_0_start = min(tile * 8u + thread % 8u, 8u);
        let v_w = t_w[stage * 72u + thread / 8u * 9u + columns_0_start];
        if (ahead > 0u) {
            for (var k = 0u; k < 2u + group.z; k++) {
                let v_from_rows = rows[thread_row * 12u + k];
                let v_from_rows_1 = rows[thread_row * 12u + k + 3u];
                let v_from_rows_2 = rows[thread_row * 12u + k + 6u];
                let v_from_rows_3 = rows[thread_row * 12u + k + 9u];
                let v_from_columns = columns[k * 32u + thread_quad];
                let v_from_columns_1 = columns[k * 32u + thread_quad + 8u];
                let v_from_columns_2 = columns[k * 32u + thread_quad + 16u];
                let v_from_columns_3 = columns[k * 32u + thread_quad + 24u];
                let b_0 = mat4x4f(v_from_columns, v_from_columns_1, v_from_columns_2, v_from_columns_3);
                let a_0 = v_from_rows;
                sum_0_0 = add_product(sum_0_0, a_0, b_0);
                let a_1 = v_from_rows_1;
                sum_1_0 = add_product(sum_1_0, a_1, b_0);
                let a_2 = v_from_rows_2;
                sum_2_0 = add_product(sum_2_0, a_2, b_0);
                let a_3 = v_from_rows_3;
                sum_3_0 = add_product(sum_3_0, a_3, b_0);
            }
        }
        workgroupBarrier(); // before others' numbers are overwritten that are still read
        rows[thread / 2u * 3u + thread % 2u] = v_x;
        columns[thread] = v_w;
        workgroupBarrier();
    }
    // A copy of the sums that can be indexed; were the sums an array, they would live in memory.
    var tile_sums = array<vec4f, 4>(sum_0_0, sum_1_0, sum_2_0, sum_3_0);
    for (var i = 0u; i < 4u + group.z; i++) {
        let row = thread_row * 4u + i;
        let quad = tile * 8u + thread_quad;
        if (row >= 30u || quad >= 9u) {
            continue;
        }
        let value = tile_sums[i];
        let v_bias = t_bias[quad];
        let v_y = value + v_bias;
        t_y[row * 9u + quad] = v_y;
    }
}
